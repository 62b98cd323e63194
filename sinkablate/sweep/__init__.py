"""A grid of runs: the same cells in the same directories, wherever and by whatever launcher they are trained."""

"""A grid of runs, trained anywhere: the same cells in the same directories, whoever starts them."""

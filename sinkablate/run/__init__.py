"""One run on disk: its directory, its checkpoints, and what a later command reads from it."""

"""The command `compare`: which conclusions about its factors a table of runs supports. Does not import torch."""

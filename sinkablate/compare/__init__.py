"""The command `compare`: what a table of runs says about its factors, and what it does not. Does not import torch."""

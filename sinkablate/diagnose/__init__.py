"""The command `diagnose`: what the attention sinks of a model do on a set of images."""

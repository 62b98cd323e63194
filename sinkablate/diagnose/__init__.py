"""The verb `diagnose`: what the sinks of a model do on a set of images."""

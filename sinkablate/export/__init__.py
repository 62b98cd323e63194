"""The command `export`: from a run to a model folder that timm, sinkablate or a model hub reads."""

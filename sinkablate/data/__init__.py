"""Images: where they are stored, how they are read, in which order, and what reaches the model.

`datamodule.py` is the entry point. It opens each split (`sources.py`) as records that can be read in any order
(`folder.py`, `tar_index.py`, `embedded/`) or as a stream of shards (`stream.py`), and combines it with an order
(`samplers.py`, `stream_split.py`) and a transform (`transforms.py`). `shards.py` writes shards.
"""

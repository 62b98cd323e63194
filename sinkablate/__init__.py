"""sinkablate: train vision transformers and measure what their attention sinks compute."""

__version__ = "0.1.0"

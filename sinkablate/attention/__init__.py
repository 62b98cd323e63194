"""Attention mechanisms: scores, sinks, gates and the global pathway."""

"""Attention mechanisms."""

"""Figures drawn from tidy tables; nothing here imports torch."""

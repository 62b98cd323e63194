"""Synthetic tasks with known solutions that require an adaptive NOP, a broadcast, or both."""

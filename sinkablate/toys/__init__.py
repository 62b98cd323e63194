"""Two synthetic tasks with known solutions: one requires an adaptive NOP, the other a broadcast."""

"""Two synthetic tasks with known answers: one that asks for an adaptive NOP, one that asks for a broadcast."""

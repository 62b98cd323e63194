"""Measure what attention sinks compute: the tap, the quantities, the rules, and the tables made from them."""

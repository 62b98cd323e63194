"""Benchmarks, to be run by hand; see README.md in this folder."""

"""The verb `compare`: what a table of runs says about its factors, and what it does not. Knows no torch."""

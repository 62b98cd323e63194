"""Figures and tables from what was measured; knows no torch."""

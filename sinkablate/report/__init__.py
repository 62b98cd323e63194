"""Figures and tables of measurements; does not import torch."""

"""Evaluates frozen backbones: nearest neighbors, probes, dense tasks, quantization. `command.py` is the entry point.

A task is a value of `tasks.TASKS`: a function from a `Subject` (a model with its images, cache and settings) to rows of
one tidy table. Figures and the table on the terminal are drawn from the rows alone.
"""

"""Adds the top-level folders configs/, sweeps/ and slurm/ to the wheel; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

SHIPPED = {f"sinkablate.shipped.{folder}": folder for folder in ("configs", "sweeps", "slurm")}

setup(packages=[*find_packages(include=["sinkablate", "sinkablate.*"]), *SHIPPED], package_dir=SHIPPED)

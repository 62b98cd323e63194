"""This process and the machine it runs on: CPUs, threads, memory, signals, streams, SLURM."""

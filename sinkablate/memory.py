"""Peak memory of this process."""

import resource
import sys

import torch


def peak_memory_gib() -> float:
    """Peak memory of this process in GiB: of the GPU where there is one, else resident."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)

"""Memory of this process: its peak, and whether an error means that there was too little."""

import resource
import sys

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """True when Python, NumPy or PyTorch, on any device, could not have the memory that it asked for."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def peak_memory_gib() -> float:
    """Peak memory of this process in GiB: of the GPU where there is one, else resident."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)

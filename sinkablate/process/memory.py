"""Memory of this process: its peak, and errors that mean that memory ran out."""

import resource
import sys

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that Python, NumPy or PyTorch, on any device, could not allocate memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def peak_memory_gib() -> float:
    """Peak memory of this process in GiB: GPU memory if a GPU is used, otherwise resident memory."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)

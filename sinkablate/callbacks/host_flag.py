"""Decisions that depend on a value on the GPU, without waiting for the work that is queued behind it."""

import torch
from torch import Tensor


class HostFlag:
    """A boolean on a device, whose copy to the host starts now and is waited for when it is read.

    Args:
        flag: A tensor with one element.
    """

    def __init__(self, flag: Tensor) -> None:
        self._flag = flag.to("cpu", non_blocking=True)  # to pinned memory
        self._arrived = torch.get_device_module(flag.device).Event()
        self._arrived.record()

    def __bool__(self) -> bool:
        self._arrived.synchronize()
        return bool(self._flag)

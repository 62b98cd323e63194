"""Copies of the state on a GPU in host memory, made while the next training step runs."""

from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor


class Staging:
    """Copies tensors to pinned host memory without waiting for the device, and reuses that memory for the next copy.

    Each tensor is first cloned on its device, in the order of the current stream, so that the next step cannot change
    it; a second stream copies the clones to the host. Cloning takes about a millisecond per GiB, while the transfer
    takes 20 to 100 ms per GiB, in parallel with the next step. The clones are freed when the transfer is done. If the
    memory that training has never used is too small for them, nothing is cloned, and the device finishes the transfer
    before it starts on the next step; the host waits in neither case.

    Host memory for one copy of the state remains allocated. Copies have the strides of the original and storages of
    their own, so that `torch.save` writes the same bytes as for `tensor.cpu()`.

    Args:
        staged: Types of the devices whose tensors are copied in this way. Tensors on a CPU are cloned, and those on
            other devices are copied at once.
    """

    def __init__(self, staged: Collection[str] = ("cuda",)) -> None:
        self._staged = staged
        self._buffers: dict[tuple[Any, ...], list[Tensor]] = {}
        self._streams: dict[torch.device, Any] = {}

    @torch.no_grad()
    def copy(self, state: Any) -> tuple[Any, Callable[[], None]]:
        """Start copying all tensors in nested dictionaries and lists; they may change as soon as this returns.

        The memory of the previous copy is overwritten.

        Returns:
            The state with its tensors on the host, and a function that waits until their values have arrived.
        """
        reusable, self._buffers = self._buffers, defaultdict(list)
        transfers: dict[torch.device, list[tuple[Tensor, Tensor]]] = defaultdict(list)

        def copied(tensor: Tensor) -> Tensor:
            tensor = tensor.detach()
            if tensor.device.type not in self._staged:
                return tensor.clone() if tensor.device.type == "cpu" else tensor.cpu()
            key = (tensor.dtype, tensor.shape, tensor.stride())
            free = reusable.get(key)
            host = free.pop() if free else _pinned_like(tensor)
            self._buffers[key].append(host)
            transfers[tensor.device].append((host, tensor))
            return host

        with torch.inference_mode(False):  # a validation may save; its buffers are reused outside of it
            on_host = apply_to_collection(state, Tensor, copied)
            waits = [self._start(device, pairs) for device, pairs in transfers.items()]

        def wait() -> None:
            for wait_for_device in waits:
                wait_for_device()

        return on_host, wait

    def _start(self, device: torch.device, pairs: list[tuple[Tensor, Tensor]]) -> Callable[[], None]:
        """Start the transfers (host, source) of one device; returns a function that waits for them."""
        module = torch.get_device_module(device)
        if device not in self._streams:
            self._streams[device] = module.Stream(device)
        stream, current = self._streams[device], module.current_stream(device)
        fits = _fits(device, sum(source.nbytes for _, source in pairs))
        sources = [source.clone() if fits else source for _, source in pairs]
        stream.wait_stream(current)
        with module.stream(stream):
            for (host, _), source in zip(pairs, sources, strict=True):
                host.copy_(source, non_blocking=True)
        done = module.Event()
        done.record(stream)
        if not fits:
            current.wait_stream(stream)

        def wait() -> None:
            done.synchronize()
            sources.clear()  # only now may the memory of the clones be used again

        return wait


def _pinned_like(tensor: Tensor) -> Tensor:
    """Return an uninitialized tensor on the host, in pinned memory unless the tensor is on the host, too."""
    return torch.empty_like(tensor, device="cpu", pin_memory=tensor.device.type != "cpu")


def _fits(device: torch.device, size: int) -> bool:
    """Whether a device has this many bytes in addition to the largest amount that this process has used so far."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.max_memory_allocated(device)
    return free + unused >= size

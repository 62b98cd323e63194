"""Count the arithmetic and the memory traffic of a program by running it on tensors that have shapes but no content.

Whatever the program is, a forward pass, a training step or the measurement of the sinks, its real code runs, so the
counts cannot fall behind it. FLOPs are those of PyTorch's own formulas (`torch.utils.flop_counter`).
"""

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

Model = TypeVar("Model", bound=nn.Module)
aten = torch.ops.aten
FLOPS = flop_registry | {
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[aten._scaled_dot_product_flash_attention],
    aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        aten._scaled_dot_product_flash_attention_backward
    ],
}
"""Operator -> its number of FLOPs; a multiply-add counts as two, and operators that are not in it count as none."""


class Kernel(NamedTuple):
    """The cost of one operation, whatever the device."""

    flops: int
    bytes: int
    """Bytes that it reads and writes, each operand once."""
    half: bool
    """Whether its operands have 16 bits."""


@dataclass(frozen=True)
class Work:
    """The operations of a program."""

    kernels: Mapping[Kernel, float] = field(default_factory=dict)
    """Operation -> how often it runs, on average. Views, which compute nothing, are not counted."""
    synchronizations: float = 0
    """How often the host reads a number from the device."""

    def __add__(self, other: "Work") -> "Work":
        kernels = dict(self.kernels)
        for kernel, count in other.kernels.items():
            kernels[kernel] = kernels.get(kernel, 0) + count
        return Work(kernels, self.synchronizations + other.synchronizations)

    def __mul__(self, times: float) -> "Work":
        kernels = {kernel: count * times for kernel, count in self.kernels.items()}
        return Work(kernels, self.synchronizations * times)

    @property
    def launches(self) -> float:
        """Number of operations."""
        return sum(self.kernels.values())

    @property
    def flops(self) -> float:
        """FLOPs of all operations."""
        return sum(kernel.flops * count for kernel, count in self.kernels.items())

    @property
    def bytes(self) -> float:
        """Bytes that all operations read and write."""
        return sum(kernel.bytes * count for kernel, count in self.kernels.items())


def count_work(model: Model, program: Callable[[Model], object], device: Literal["cpu", "meta"] = "cpu") -> Work:
    """Run a program on a copy of a model without content, and return its operations.

    Args:
        model: The model; nothing is written to it.
        program: Runs the copy, on tensors that it creates. Numbers that the host reads from tensors are zero, and
            conditions are true.
        device: Device of the copy: `cpu` for programs with a backward pass or autocast, `meta` for programs that read
            no more numbers than necessary on any other device.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)  # type: ignore[no-untyped-call]
    mode = fake if device == "cpu" else _FusedAttention()
    bare = without_content(model, device, mode)
    with mode, _Counter(device) as counter:
        program(bare)
    return Work(counter.kernels, counter.synchronizations)


def without_content(model: Model, device: str, mode: AbstractContextManager[Any] | None = None) -> Model:
    """Return a copy of a model whose parameters and buffers have shapes but no content.

    Args:
        model: The model.
        device: Device of the copy.
        mode: Context in which its parameters and buffers are created, if there is one.
    """
    bare: dict[int, Any] = {}
    with mode or nullcontext():
        for tensor in (*model.parameters(), *model.buffers()):
            empty = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
            bare[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(model, bare)  # which finds these tensors in its memo


class _FusedAttention(TorchFunctionMode):
    """Runs attention as one operation, as every device except `meta` does."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        named = dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), args, strict=False)) | kwargs
        named.pop("enable_gqa", None)
        return aten._scaled_dot_product_flash_attention_for_cpu(**named)[0]


class _Counter(TorchDispatchMode):
    """Counts the operations that run on a device while it is active."""

    def __init__(self, device: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.kernels: Counter[Kernel] = Counter()
        self.synchronizations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is aten._local_scalar_dense.default:
            return self._read(*args)
        if func is aten._to_copy.default and args[0].is_meta and str(kwargs.get("device")) == "cpu":
            self.synchronizations += 1
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        out = func(*args, **kwargs)
        if func.namespace == "aten" and not _computes_nothing(func, args, kwargs, out):
            self.kernels[_kernel(func, args, kwargs, out)] += 1
        return out

    def _read(self, number: Tensor) -> Any:
        """Return a number that the host reads, which is known if it does not depend on content."""
        self.synchronizations += number.device.type == self.device
        try:
            return aten._local_scalar_dense(number)
        except RuntimeError:
            return number.dtype == torch.bool


def _computes_nothing(func: Any, args: Any, kwargs: Any, out: Any) -> bool:
    """Return whether an operation only allocates memory, or returns a view or numbers about a tensor."""
    outputs = _tensors(out)
    if not outputs or func.is_view or "empty" in func.overloadpacket.__name__:
        return True
    read = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
    return not func._schema.is_mutable and all(tensor.untyped_storage()._cdata in read for tensor in outputs)


def _kernel(func: Any, args: Any, kwargs: Any, out: Any) -> Kernel:
    """Return the cost of one operation."""
    formula = FLOPS.get(func.overloadpacket)
    operands = _tensors((args, kwargs))
    floating = [tensor for tensor in operands if tensor.is_floating_point()]
    return Kernel(
        flops=0 if formula is None else int(formula(*args, **kwargs, out_val=out)),
        bytes=sum(map(_size, operands)) + sum(map(_size, _tensors(out))),
        half=bool(floating) and floating[0].element_size() == 2,
    )


def _size(tensor: Tensor) -> int:
    """Return the bytes of a tensor; those of a broadcast one are counted once."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _tensors(values: Any) -> list[Tensor]:
    """Return all tensors in nested arguments."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]

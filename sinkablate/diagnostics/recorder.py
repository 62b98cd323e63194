"""Reduces the blocks of a batch to `Records`, those of the same shape together, without waiting for a GPU.

The attention weights of each block are reduced while the model runs. Everything else is small, so its cost on a GPU is
that of launching kernels; it is computed for as many blocks at once as the memory budget allows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.activations import kurtosis, massive_activations, max_abs
from sinkablate.diagnostics.columns import candidates_by_type
from sinkablate.diagnostics.head_factor import head_factor
from sinkablate.diagnostics.head_tensors import HeadTensors
from sinkablate.diagnostics.heads import block_mass, head_quantities, sink_payload
from sinkablate.diagnostics.norms import register_cosine, token_norms, token_variance
from sinkablate.diagnostics.patches import patch_variance
from sinkablate.diagnostics.records import Array, Records
from sinkablate.diagnostics.routing import sum_weights
from sinkablate.diagnostics.view import BlockView, version
from sinkablate.diagnostics.weight_sums import WeightSums
from sinkablate.errors import UserError

CPU_MEMORY_MIB = 2
"""Memory of the blocks that are measured together on a CPU, which gains from it only while they fit its cache."""
GPU_MEMORY_MIB = 2048
"""The same on other devices."""

TABLES = ("heads", "mass", "candidates", "tokens")
"""The fields of `Records` that hold one value per image and block, or per image and head."""

SAME = ("layout", "extra", "gates_values", "rows_sum_to_one", "rows_at_most_one", "takes_null")
"""The fields of views that have to be equal if their blocks are measured together."""

Group = dict[str, Tensor]
"""Quantity -> values of several blocks, (B, L, ...)."""


@dataclass(frozen=True)
class _Block:
    """A block that waits to be measured together with the next ones."""

    view: BlockView
    """Without queries and keys."""
    sums: WeightSums
    output: Tensor
    """The block's output, (B, N, D)."""

    @property
    def kept(self) -> list[Tensor]:
        """The model's own tensors that are read later."""
        return [*_kept(self.view, self.sums), self.output]


class Recorder:
    """A consumer of the tap that reduces the blocks of a batch and returns `Records`.

    Use one recorder per model with fixed weights: what depends on the weights alone is computed once.

    Args:
        thresholds: Thresholds of the quantities.
        memory_mib: Memory of the blocks that are measured together, in MiB; at least one block is measured. None
            chooses by device. It changes speed and memory, not the results.
    """

    def __init__(self, thresholds: ThresholdConfig, memory_mib: int | None = None) -> None:
        self.thresholds = thresholds
        self.memory_mib = memory_mib
        self._factors: dict[int, Tensor] = {}
        self.reset()

    def reset(self) -> None:
        """Discard a batch that failed."""
        self._open: WeightSums | None = None
        self._waiting: list[_Block] = []
        self._versions: list[int] = []
        self._measured: list[dict[str, Group]] = []
        self._sums: list[Group] = []
        self._input_norms: list[Tensor] = []
        self._variance: Tensor | None = None
        self._last: BlockView | None = None

    def attention(self, view: BlockView) -> None:
        """Reduce the attention weights of one block."""
        if self._waiting and not _alike(self._waiting[-1], view):
            self.finish()
        if self._last is None or view.index != self._last.index + 1:
            self._input_norms.append(token_norms(view.residual))
            self._variance = token_variance(view.residual)
        self._last = view.without_scores()
        self._open = sum_weights(view, self.thresholds)
        self._versions += map(version, _kept(self._last, self._open))

    def output(self, index: int, x: Tensor) -> None:
        """Measure the waiting blocks, together with the one that returned x (B, N, D), unless more fit the budget."""
        assert self._open is not None
        assert self._last is not None
        block, self._open = _Block(self._last, self._open, x), None
        self._waiting.append(block)
        self._versions.append(version(x))
        size = sum(tensor.numel() * tensor.element_size() for tensor in block.kept)
        if x.is_inference() or (len(self._waiting) + 1) * size > self._budget(x.device) * 2**20:
            self._measure()

    def _budget(self, device: torch.device) -> int:
        """Return the memory of the blocks that are measured together, in MiB."""
        if self.memory_mib is not None:
            return self.memory_mib
        return CPU_MEMORY_MIB if device.type == "cpu" else GPU_MEMORY_MIB

    def _measure(self) -> None:
        """Compute the quantities of the waiting blocks."""
        blocks, versions = self._waiting, self._versions
        self._waiting, self._versions = [], []
        if [version(tensor) for block in blocks for tensor in block.kept] != versions:
            if self.memory_mib == 0:
                raise UserError("the model cannot be measured: a block modifies its input or its attention in place")
            raise UserError(
                "the model modifies its activations in place, so several blocks cannot be measured together; "
                "set memory_mib=0 to measure each block as it runs"
            )
        views, view = [block.view for block in blocks], blocks[0].view
        heads = HeadTensors.of(views, [block.sums for block in blocks], self._factor(views))
        count = len(blocks)
        payload = sink_payload(heads).double().unflatten(1, (count, -1))
        self._sums.append({"payload_sum": payload.sum(0), "payload_squares": payload.square().sum((0, -1))})
        quantities = head_quantities(heads, self.thresholds)
        candidates = candidates_by_type(view)
        self._measured.append(
            {
                "heads": {name: values.unflatten(1, (count, -1)) for name, values in quantities.items()},
                "mass": block_mass(heads, view),
                "candidates": {name: values[:, None].expand(-1, count) for name, values in candidates.items()},
                **self._tokens(blocks),
            }
        )

    def _factor(self, views: Sequence[BlockView]) -> Tensor:
        """Return the factors of the output maps of blocks, (L H, d, d), which are computed once.

        All heads are factored together, because a GPU factors a batch as fast as a matrix.
        """
        if missing := [view for view in views if view.index not in self._factors]:
            factors = head_factor(torch.cat([view.out_map for view in missing])).chunk(len(missing))
            self._factors |= {view.index: factor for view, factor in zip(missing, factors, strict=True)}
        return torch.cat([self._factors[view.index] for view in views])

    def finish(self) -> None:
        """Measure the blocks that still wait; `take` does so as well, and then copies everything to the host."""
        if self._waiting:
            self._measure()

    def _tokens(self, blocks: Sequence[_Block]) -> dict[str, Group]:
        """Return what is measured on the tokens of blocks that follow one another, (B, L) each, and norms (B, L, N)."""
        layout = blocks[0].view.layout
        x = _stack([block.output for block in blocks])
        variance, before = token_variance(x), self._variance
        assert before is not None
        self._variance = variance[:, -1]
        tokens = {"variance_in": torch.cat((before[:, None], variance[:, :-1]), dim=1)}
        updates = [block.view.update for block in blocks if block.view.update is not None]
        if updates:
            update = _stack(updates)
            tokens |= {"max_abs_attn": max_abs(update), "kurtosis_attn": kurtosis(update)}
        tokens |= {
            "variance_out": variance,
            "max_abs": max_abs(x),
            "kurtosis": kurtosis(x),
            "massive": massive_activations(x),
            "register_cosine": register_cosine(x[..., layout.num_cls : layout.num_prefix, :]),
        }
        return {"tokens": tokens, "norms": {"norms": token_norms(x)}}

    def take(self, order: NDArray[np.int64], images: Tensor | None = None) -> Records:
        """Return the records of the last batch, and get ready for the next.

        Args:
            order: Position of each image in the full set.
            images: The batch (B, C, H, W), from which the variance of every patch is computed.
        """
        self.finish()
        view, measured, sums, inputs = self._last, self._measured, self._sums, self._input_norms
        self.reset()
        if view is None or not measured:
            raise RuntimeError("no block has been recorded")
        types = view.token_types
        variance = None if images is None or types is not None else patch_variance(images, view.layout.num_patches)
        return Records(
            order=order,
            layout=view.layout,
            norms=_joined([group["norms"] for group in measured])["norms"],
            **{name: _joined([group[name] for group in measured]) for name in TABLES},
            input_norms=torch.stack(inputs, dim=1).cpu().float().numpy(),
            token_types=None if types is None else types.cpu().numpy().astype(np.int8),
            patch_variance=None if variance is None else variance.cpu().numpy(),
            payload_sum=torch.cat([group["payload_sum"] for group in sums]).cpu().numpy(),
            payload_squares=torch.cat([group["payload_squares"] for group in sums]).cpu().numpy(),
        )


def _kept(view: BlockView, sums: WeightSums) -> list[Tensor]:
    """Return the model's own tensors that are read after the attention of a block."""
    return [tensor for tensor in (sums.output, view.residual, view.update) if tensor is not None]


def _alike(block: _Block, other: BlockView) -> bool:
    """Return whether a block can be measured together with the one before it."""
    one = block.view
    return (
        other.index == one.index + 1
        and all(getattr(one, name) == getattr(other, name) for name in SAME)
        and one.visible is other.visible
        and (block.sums.dead is None) == (other.logits is not None)
        and all(_shape(getattr(one, name)) == _shape(getattr(other, name)) for name in ("v", "raw_v", "gate", "update"))
    )


def _shape(tensor: Tensor | None) -> torch.Size | None:
    return None if tensor is None else tensor.shape


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors of several blocks, (B, N, D) -> (B, L, N, D); those of a single block are not copied."""
    return tensors[0][:, None] if len(tensors) == 1 else torch.stack(list(tensors), dim=1)


def _joined(groups: Sequence[Group]) -> dict[str, Array]:
    """Return the quantities of all groups of blocks, copied from the device at once, (B, L, ...) each."""
    names = list(dict.fromkeys(name for group in groups for name in group))
    values = torch.stack([torch.cat([_of_blocks(group, name) for group in groups], dim=1) for name in names])
    return dict(zip(names, values.cpu().numpy(), strict=True))


def _of_blocks(group: Group, name: str) -> Tensor:
    """Return a quantity of some blocks as floating-point numbers, or a substitute if only other blocks have a gate.

    Without a gate, a `gated_*` or `raw_*` quantity equals the plain one, and those of the gate itself are NaN.
    """
    values = group.get(name, group.get(name.removeprefix("gated_").removeprefix("raw_")))
    if values is None:
        return torch.full_like(next(iter(group.values())), torch.nan, dtype=torch.float32)
    return values.float()

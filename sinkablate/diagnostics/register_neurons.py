"""Register neurons: the MLP neurons that write the outlier tokens of a vision transformer (arXiv 2506.08010).

The score of a neuron is its mean absolute activation on the outlier patches of an image, averaged over the images that
have outliers; an activation is an input of the last linear map of the MLP. An outlier is a patch whose norm after a
block lies above the cut-off of the token maps (`cutoff.py`). If none is, the patch of largest norm in every image
is used instead, and the result states it.

Axis letters: n images, B images of a batch, L blocks, N tokens, P patches, K neurons of an MLP.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sinkablate.config import RegisterNeuronConfig
from sinkablate.config.checks import block_indices
from sinkablate.diagnostics.batches import accepted
from sinkablate.diagnostics.cutoff import Cutoff, find_cutoff
from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.diagnostics.records import Array
from sinkablate.errors import UserError
from sinkablate.vit.anatomy import block_parts, blocks_of, features
from sinkablate.vit.test_time_registers import require_supported
from sinkablate.vit.tokens import token_layout

Batches = Callable[[], Iterable[Tensor]]
"""Returns the images in batches (B, C, H, W); it is called twice."""


@dataclass(frozen=True, kw_only=True)
class RegisterNeurons:
    """The neurons whose activations are moved to test-time registers, and how they were found."""

    neurons: tuple[tuple[int, int], ...]
    """(block, index in its MLP) of each neuron, by descending score; random ones are in ascending order."""
    scores: tuple[float, ...]
    """Their mean absolute activation on the outliers."""
    blocks: tuple[int, ...]
    """The blocks whose neurons were considered."""
    outlier_block: int
    """The block after which the outliers were looked for."""
    cutoff: float | None
    """The norm above which a patch is an outlier there; None if there are no outliers."""
    outliers: float
    """Share of the patches that are outliers there."""
    images: int
    """Number of images."""
    choice: str = "largest"
    """`random` for the control."""

    def by_block(self) -> dict[int, list[int]]:
        """Return the neurons as block -> indices."""
        return {block: [index for b, index in self.neurons if b == block] for block, _ in self.neurons}

    @property
    def sentence(self) -> str:
        """How the neurons were found, for the terminal."""
        blocks = sorted(self.by_block())
        where = f"block {blocks[0]}" if len(blocks) == 1 else f"blocks {', '.join(map(str, blocks))}"
        control = self.choice == "random"
        outliers = (
            f"no patch of {self.images} images is an outlier, so the patch of largest norm of each image after block "
            f"{self.outlier_block} is used instead"
            if self.cutoff is None
            else f"{self.outliers:.2%} of the patches of {self.images} images are outliers after block "
            f"{self.outlier_block} (norm above {self.cutoff:.4g})"
        )
        kind = "random neurons" if control else "neurons"
        purpose = ", as a control for those that are most active on outliers" if control else ""
        return f"{len(self.neurons)} {kind} in {where}{purpose}; {outliers}"


def find_register_neurons(model: nn.Module, batches: Batches, config: RegisterNeuronConfig) -> RegisterNeurons:
    """Find the register neurons of a vision transformer, or draw the random ones of the control.

    Args:
        model: The model, which is left as it was.
        batches: The images.
        config: Number and kind of neurons, and where the outliers are.

    Raises:
        UserError: The model cannot have test-time registers, there are no images, or there are not as many neurons.
    """
    require_supported(model)
    depth = len(blocks_of(model))
    with measurement_mode(model):
        norms = np.concatenate([_patch_norms(model, batch) for batch in _on_device(model, batches)])
        cutoffs = [find_cutoff(norms[:, block], config.outlier_norm) for block in range(depth)]
        block, blocks = _blocks(config, norms, cutoffs)
        marks = norms[:, block] > cutoffs[block].value
        cutoff = cutoffs[block].value if marks.any() else None
        if cutoff is None:
            marks = norms[:, block] == norms[:, block].max(axis=1, keepdims=True)
        scores = _scores(model, batches, marks, blocks)
    neurons = _chosen(scores, config, blocks)
    return RegisterNeurons(
        neurons=neurons,
        scores=tuple(scores[block][index].item() for block, index in neurons),
        blocks=tuple(blocks),
        outlier_block=block,
        cutoff=cutoff,
        outliers=0.0 if cutoff is None else float(marks.mean()),
        images=len(norms),
        choice=config.choice,
    )


def _on_device(model: nn.Module, batches: Batches) -> Iterator[Tensor]:
    dtype = next(model.parameters()).dtype
    return (batch.to(dtype) for batch in accepted(model, batches()))


def _patch_norms(model: nn.Module, images: Tensor) -> Array:
    """Return the norms of the patches after every block, (B, L, P)."""
    norms: list[Tensor] = []

    def note(_: nn.Module, _args: Any, output: Any) -> None:
        x: Tensor = output[0] if isinstance(output, tuple) else output
        norms.append(x[:, token_layout(model, x.shape[1], images.shape[-2:]).num_prefix :].norm(dim=-1))

    with ExitStack() as stack:
        for block in blocks_of(model):
            stack.callback(block.register_forward_hook(note).remove)
        features(model, images)
    values: Array = torch.stack(norms, dim=1).float().cpu().numpy()
    if not np.isfinite(values).all():
        raise UserError("test_time_registers: the model computes NaN or infinity")
    return values


def _blocks(config: RegisterNeuronConfig, norms: Array, cutoffs: Sequence[Cutoff]) -> tuple[int, list[int]]:
    """Return the block after which outliers are looked for, and the blocks whose neurons are considered."""
    depth = len(cutoffs)
    shares = [float((norms[:, index] > cutoff.value).mean()) for index, cutoff in enumerate(cutoffs)]
    with_outliers = [index for index, share in enumerate(shares) if share > 0]
    if config.outlier_block is not None:
        (block,) = block_indices([config.outlier_block], depth, "register_neurons.outlier_block")
    else:
        block = int(np.argmax(shares)) if with_outliers else max(0, depth - 2)
    if config.blocks is not None:
        return block, block_indices(config.blocks, depth, "register_neurons.blocks")
    first = min([*with_outliers, block])
    return block, list(range(first + 1))


def _scores(model: nn.Module, batches: Batches, marks: Any, blocks: Sequence[int]) -> dict[int, Tensor]:
    """Return the score of every neuron, block -> (K,) float64.

    Args:
        model: The model.
        batches: The images.
        marks: Which patches are outliers, (n, P).
        blocks: The blocks whose neurons are considered.
    """
    totals: dict[int, Tensor] = {}
    weights = torch.zeros(0)  # of the patches of a batch: one over the number of outliers of their image, or zero

    def note(block: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            activations = args[0][:, -weights.shape[1] :].abs()
            sums = torch.einsum("bp,bpk->k", weights.to(activations), activations).double().cpu()
            totals[block] = totals.get(block, torch.zeros_like(sums)) + sums

        return hook

    start = 0
    with ExitStack() as stack:
        for block in blocks:
            mlp_out: Any = block_parts(model, block).mlp_out
            stack.callback(mlp_out.register_forward_pre_hook(note(block)).remove)
        for batch in _on_device(model, batches):
            outliers = torch.from_numpy(marks[start : start + len(batch)]).double()
            weights = outliers / outliers.sum(1, keepdim=True).clamp(min=1)
            features(model, batch)
            start += len(batch)
    return {block: total / int(marks.any(axis=1).sum()) for block, total in totals.items()}


def _chosen(
    scores: dict[int, Tensor], config: RegisterNeuronConfig, blocks: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """Return the neurons of largest score, or as many random others in the same blocks."""
    candidates = [(block, index) for block in blocks for index in range(len(scores[block]))]
    values = torch.cat([scores[block] for block in blocks])
    if config.top > len(candidates):
        raise UserError(f"register_neurons.top={config.top}: blocks {list(blocks)} have only {len(candidates)} neurons")
    largest = [candidates[number] for number in values.argsort(descending=True, stable=True)[: config.top].tolist()]
    if config.choice == "largest":
        return tuple(largest)
    generator, drawn = np.random.default_rng(config.seed), []
    for block in blocks:
        taken = {index for b, index in largest if b == block}
        others = [index for index in range(len(scores[block])) if index not in taken]
        if len(taken) > len(others):
            raise UserError(
                f"register_neurons.top={config.top}: block {block} has fewer than {len(taken)} other neurons to draw"
            )
        drawn += [(block, int(index)) for index in sorted(generator.choice(others, len(taken), replace=False))]
    return tuple(drawn)

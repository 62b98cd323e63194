"""Attention maps of chosen heads, read from the tapped model."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.diagnostics.tap import Tap
from sinkablate.diagnostics.view import BlockView
from sinkablate.errors import UserError
from sinkablate.vit.anatomy import block_parts, blocks_of

Head = tuple[int, int]
"""Block and head."""


class MapRecorder:
    """A consumer of the tap that keeps the attention weights of chosen heads on the CPU.

    Args:
        heads: (block, head) of each.
    """

    def __init__(self, heads: Sequence[Head]) -> None:
        self.maps: dict[Head, list[Tensor]] = {head: [] for head in heads}

    def attention(self, view: BlockView) -> None:
        """Keep the weights (B, N, M) of one block's heads; one matrix exists at a time on the device."""
        for (block, head), kept in self.maps.items():
            if block == view.index:
                rows = [view.weights(slice(i, i + 1), slice(head, head + 1))[:, 0].cpu() for i in range(len(view.q))]
                kept.append(torch.cat(rows))

    def output(self, index: int, x: Tensor) -> None:
        """Keep nothing of a block's output."""


def record_maps(model: nn.Module, batches: Iterable[Tensor], heads: Sequence[Head]) -> dict[Head, Tensor]:
    """Return the attention weights of some heads on batches of images, (n, N, M) on the CPU for each head.

    Raises:
        UserError: A head is outside the model, there are no images, or the model cannot be measured.
    """
    depth = len(blocks_of(model))
    for block, head in heads:
        count = block_parts(model, 0).num_heads
        if not (0 <= block < depth and 0 <= head < count):
            raise UserError(f"heads: {block}:{head} is outside the model's {depth} blocks of {count} heads")
    recorder, device = MapRecorder(heads), next(model.parameters()).device
    with measurement_mode(model), Tap(model, recorder, sorted({block for block, _ in heads})) as tap:
        for batch in batches:
            tap.run(batch.to(device))
    if not all(recorder.maps.values()):
        raise UserError("images: there are none to read attention maps from")
    return {head: torch.cat(kept) for head, kept in recorder.maps.items()}

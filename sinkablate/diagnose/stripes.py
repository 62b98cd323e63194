"""Attention maps of the heads that sink most, for the figure; weights are kept for these heads and one image only."""

import torch
from torch import Tensor, nn

from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.diagnostics.tap import Tap
from sinkablate.diagnostics.view import BlockView
from sinkablate.figures.stripes import AttentionMap


class _Maps:
    """Keeps the maps of chosen heads."""

    def __init__(self, heads: list[tuple[int, int]]) -> None:
        self.heads = heads
        self.found: list[AttentionMap] = []

    def attention(self, view: BlockView) -> None:
        """One block."""
        for block, head in self.heads:
            if block == view.index:
                weights = view.weights(slice(0, 1), slice(head, head + 1))[0, 0]
                norms = torch.linalg.vector_norm(view.v[0, head] @ view.out_map[head].T, dim=-1)
                self.found.append(AttentionMap(block, head, weights.float().cpu().numpy(), norms.float().cpu().numpy()))

    def output(self, index: int, x: Tensor) -> None:
        """Nothing is kept."""


def attention_maps(model: nn.Module, image: Tensor, heads: list[tuple[int, int]]) -> list[AttentionMap]:
    """Maps of some heads on one image (1, C, H, W), by block and head."""
    maps = _Maps(heads)
    with measurement_mode(model), Tap(model, maps, sorted({block for block, _ in heads})) as tap:
        tap.run(image)
    return maps.found

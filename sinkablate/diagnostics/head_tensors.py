"""What is left of the heads of one block, or of several, once their attention weights are reduced.

Axis letters as in `view.py`. The tensors of several blocks are joined along the axis of heads, so H is the number of
heads of all these blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from sinkablate.diagnostics.routing import Routing
from sinkablate.diagnostics.view import BlockView
from sinkablate.diagnostics.weight_sums import WeightSums, side_by_side


@dataclass(frozen=True)
class HeadTensors:
    """The tensors of heads from which every quantity is computed."""

    sums: WeightSums
    routing: Routing
    v: Tensor
    """(B, H, M, d)."""
    raw_v: Tensor | None
    gate: Tensor | None
    """(B, H, N, 1 or d)."""
    gates_values: bool
    factor: Tensor
    """R (H, d, d)."""
    residual_norms: Tensor
    """||residual_i|| of every block, (B, L, N)."""
    types: Tensor
    """Token type of each column, (M,) or (B, M)."""

    @classmethod
    def of(cls, views: Sequence[BlockView], sums: Sequence[WeightSums], factor: Tensor) -> Self:
        """Put the heads of several blocks of the same shape side by side.

        Args:
            views: The blocks.
            sums: What their attention weights are reduced to.
            factor: `head_factor` of their output maps, one after the other.
        """
        joined = WeightSums.join(sums)
        return cls(
            joined,
            Routing.of(joined, views[0]),
            side_by_side(views, "v").contiguous(),
            side_by_side(views, "raw_v"),
            side_by_side(views, "gate"),
            views[0].gates_values,
            factor,
            torch.stack([torch.linalg.vector_norm(view.residual, dim=-1) for view in views], dim=1),
            views[0].column_types(),
        )

    @property
    def num_tokens(self) -> int:
        """N; later columns are extra ones."""
        return self.routing.at_sink.shape[-1]

    def norms(self, x: Tensor) -> Tensor:
        """Return ||W x|| for every row, (B, H, n, d) -> (B, H, n)."""
        norms: Tensor = torch.linalg.vector_norm(project(x, self.factor), dim=-1)
        return norms

    def per_head(self, x: Tensor) -> Tensor:
        """Repeat numbers of each block for its heads, (B, L, ...) -> (B, H, ...)."""
        return x.repeat_interleave(self.v.shape[1] // x.shape[1], dim=1)


def project(x: Tensor, factor: Tensor) -> Tensor:
    """Return R x for every row x, (b, h, n, d), (h, d, d) -> (b, h, n, d)."""
    return x @ factor.mT

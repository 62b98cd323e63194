"""Everything measured on a set of images, as arrays with images first: appended batch by batch, merged over ranks.

Medians and quantiles do not add up, so what is gathered is per image, not sums; a probe set makes a few megabytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.heads import measure
from sinkablate.diagnostics.norms import register_cosine, token_norms, token_variance
from sinkablate.diagnostics.view import BlockView
from sinkablate.vit.tokens import TokenLayout

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Records:
    """Measurements of n images on L blocks of H heads."""

    order: NDArray[np.int64]
    """Position of each image in the whole set, (n,)."""
    layout: TokenLayout
    """The sequence the blocks saw."""
    heads: dict[str, Array]
    """Quantity -> (n, L, H), see `heads.py`."""
    mass: dict[str, Array]
    """Token type -> share of attention mass, (n, L)."""
    tokens: dict[str, Array]
    """variance_in, variance_out, register_cosine: (n, L)."""
    norms: Array
    """L2 norm of every token of each block's output, before the final norm, (n, L, N)."""
    payload: Array
    """What each head's dominant column hands out, (n, L, H, d)."""

    @classmethod
    def merge(cls, parts: Sequence[Self]) -> Self:
        """One set from the parts of several batches or ranks, in the order of the whole set."""
        order = np.concatenate([part.order for part in parts])
        by = np.argsort(order, kind="stable")

        def join(arrays: list[Array]) -> Array:
            return np.concatenate(arrays)[by]

        def join_all(name: str) -> dict[str, Array]:
            keys = getattr(parts[0], name)
            return {key: join([getattr(part, name)[key] for part in parts]) for key in keys}

        return cls(order=order[by], layout=parts[0].layout, heads=join_all("heads"), mass=join_all("mass"),
                   tokens=join_all("tokens"), norms=join([part.norms for part in parts]),
                   payload=join([part.payload for part in parts]))


class Recorder:
    """Consumes the views of one batch and turns them into `Records`; reduces where it observes."""

    def __init__(self, thresholds: ThresholdConfig) -> None:
        self.thresholds = thresholds
        self._blocks: list[dict[str, dict[str, Tensor]]] = []
        self._layout: TokenLayout | None = None

    def __call__(self, view: BlockView, output: Tensor) -> None:
        """Measure one block; only per-image numbers stay."""
        measures = measure(view, self.thresholds)
        registers = output[:, view.layout.num_cls:view.layout.num_prefix]
        self._layout = view.layout
        self._blocks.append({
            "heads": measures.heads,
            "mass": measures.mass,
            "tokens": {"variance_in": token_variance(view.residual), "variance_out": token_variance(output),
                       "register_cosine": register_cosine(registers)},
            "rest": {"norms": token_norms(output), "payload": measures.payload},
        })

    def take(self, order: NDArray[np.int64]) -> Records:
        """The records of the batch just seen, whose images have these positions; ready for the next batch."""
        blocks, self._blocks = self._blocks, []
        if self._layout is None or not blocks:
            raise RuntimeError("no block has been recorded")

        def stack(group: str) -> dict[str, Array]:
            names = blocks[0][group]
            return {name: torch.stack([block[group][name] for block in blocks], dim=1).cpu().float().numpy()
                    for name in names}

        rest = stack("rest")
        return Records(order=order, layout=self._layout, heads=stack("heads"), mass=stack("mass"),
                       tokens=stack("tokens"), norms=rest["norms"], payload=rest["payload"])

"""The controls that must come out as stated, or the report says so in its first line.

permuted values    NOP labels vanish, broadcast labels survive: that label alone is no evidence of content
random network     every event is broadcast, none NOP; the donor's direction and the gain over local size are null
donor              moves outputs toward the donor more than a random direction does, else there is no content
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import nan
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.labels import apply
from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.diagnostics.records import Recorder, Records
from sinkablate.diagnostics.rules import Label, Rule
from sinkablate.diagnostics.tap import Tap
from sinkablate.diagnostics.view import BlockView
from sinkablate.intervene.edits import DONOR, ROTATED
from sinkablate.intervene.validation import Estimate, over_blocks, weighted_median
from sinkablate.vit.init import generator
from sinkablate.vit.tokens import TokenType

NOP_LEFT_MAX = 0.2
"""NOP labels have vanished when at most this share is left."""
FEWEST_EVENTS = 20
"""Events of a label without which nothing is said of it."""
BROADCAST_KEPT_MIN = 0.8
"""Broadcast labels survive when at least this share is kept."""


@dataclass(frozen=True)
class Outcome:
    """One control."""

    name: str
    passed: bool | None
    """None: there is nothing to judge."""
    says: str
    """In one sentence, with its numbers."""
    numbers: dict[str, Any]

    def fields(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


class _Permuted(Recorder):
    """Measures every block as if its values stood at other tokens, in every head another permutation."""

    def __init__(self, thresholds: ThresholdConfig, seed: int) -> None:
        super().__init__(thresholds)
        self.seed, self.seen = seed, 0

    def attention(self, view: BlockView) -> None:
        """Measure one block's heads with permuted values."""
        batch, heads, n = view.q.shape[:3]
        order = torch.stack(
            [
                torch.rand(
                    heads, n, generator=generator(self.seed, f"permutation {self.seen + image} {view.index}")
                ).argsort(-1)
                for image in range(batch)
            ]
        )
        index = order.to(view.v.device)[..., None].expand(-1, -1, -1, view.v.shape[-1])
        v = torch.cat((view.v[:, :, :n].gather(2, index), view.v[:, :, n:]), dim=2)
        super().attention(replace(view, v=v, raw_v=None, output=None))

    def take(self, order: NDArray[np.int64]) -> Records:
        """As every recorder's; the images after these are permuted otherwise."""
        self.seen += len(order)
        return super().take(order)


def records_of(model: nn.Module, images: Sequence[Tensor], recorder: Recorder) -> Records:
    """Measure images (1, C, H, W), one at a time."""
    parts = []
    with measurement_mode(model), Tap(model, recorder) as tap:
        for number, image in enumerate(images):
            tap.run(image)
            parts.append(recorder.take(np.array([number])))
    return Records.merge(parts)


def permuted_values(
    model: nn.Module, images: Sequence[Tensor], rule: Rule, thresholds: ThresholdConfig, seed: int
) -> Outcome:
    """Labels before and after each head's values are permuted over tokens; columns that are no token aside."""
    before, after = (
        records_of(model, images, recorder) for recorder in (Recorder(thresholds), _Permuted(thresholds, seed))
    )
    valued = ~np.isin(before.heads["sink_type"], (TokenType.NULL, TokenType.KV_BIAS))
    was, now = (apply(rule, records.heads) for records in (before, after))
    kept = {}
    for label in (Label.NOP, Label.BROADCAST):
        events = (was == label) & valued
        kept[label] = (int(events.sum()), float((now == label)[events].mean()) if events.any() else nan)
    (nops, nop_left), (broadcasts, broadcast_kept) = kept[Label.NOP], kept[Label.BROADCAST]
    numbers = {
        "images": len(images),
        "nop_events": nops,
        "nop_left": nop_left,
        "broadcast_events": broadcasts,
        "broadcast_kept": broadcast_kept,
    }
    said = "; ".join(
        [
            f"{nop_left:.0%} of {nops} NOP labels left" if nops else "no NOP label",
            f"{broadcast_kept:.0%} of {broadcasts} broadcast labels kept" if broadcasts else "no broadcast label",
        ]
    )
    judged = [nop_left <= NOP_LEFT_MAX] * (nops >= FEWEST_EVENTS)
    judged += [broadcast_kept >= BROADCAST_KEPT_MIN] * (broadcasts >= FEWEST_EVENTS)
    unsure = "" if judged else f"; {FEWEST_EVENTS} of one kind are needed"
    return Outcome("permuted values", all(judged) if judged else None, said + unsure, numbers)


def donor_gain(heads: pl.DataFrame) -> Estimate:
    """How much nearer to the donor its value moves outputs than a random direction does: median over broadcast heads.

    The difference of cosines, with an interval from a bootstrap over blocks.
    """
    some = heads.filter(pl.col("counts") & (pl.col("class") == "broadcast"))
    donor, rotated = (
        some.filter(pl.col("edit") == edit.name).select("block", "head", "donor_cosine") for edit in (DONOR, ROTATED)
    )
    both = donor.join(rotated, on=["block", "head"], suffix="_rotated").sort("block", "head")
    if not len(both):
        return Estimate(nan)
    gains = (both["donor_cosine"] - both["donor_cosine_rotated"]).to_numpy()
    return over_blocks(both["block"].to_numpy(), lambda weights: weighted_median(gains, weights))


def donor_direction(heads: pl.DataFrame) -> Outcome:
    """Whether the payload of broadcast heads carries content."""
    gain = donor_gain(heads)
    numbers = gain.fields("donor_gain")
    if np.isnan(gain.value):
        return Outcome("donor", None, "no broadcast head with donor and rotated values", numbers)
    said = f"donor over random direction {gain.value:+.3f}"
    if np.isnan(gain.low):
        return Outcome("donor", None, f"{said} in cosine, from too few blocks for an interval", numbers)
    positive = gain.low > 0
    content = "the payload carries content" if positive else "no content"
    return Outcome("donor", positive, f"{said} [{gain.low:+.3f}, {gain.high:+.3f}] in cosine: {content}", numbers)

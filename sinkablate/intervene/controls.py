"""Controls with known outcomes; the first line of the report names those that fail.

permuted values    NOP labels vanish, broadcast labels survive, so the label alone is no evidence of content
random network     all events are broadcast; the donor's direction does no more than a random one, and the effect of an
                   edit separates the labels no better than the head's local size |A_:s| |u_s| does
donor              the donor's value moves outputs toward the donor more than a random direction does, or the payload
                   carries no content
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
from sinkablate.diagnostics.recorder import Recorder
from sinkablate.diagnostics.records import Records
from sinkablate.diagnostics.rules import Label, Rule
from sinkablate.diagnostics.tap import Tap
from sinkablate.diagnostics.view import BlockView
from sinkablate.intervene.edits import DONOR, ROTATED
from sinkablate.intervene.validation import Estimate, over_blocks, weighted_median
from sinkablate.vit.init import generator
from sinkablate.vit.tokens import TokenType

NOP_LEFT_MAX = 0.2
"""NOP labels count as vanished if at most this share is left."""
FEWEST_EVENTS = 20
"""A label with fewer events is not judged."""
BROADCAST_KEPT_MIN = 0.8
"""Broadcast labels count as surviving if at least this share is kept."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one control."""

    name: str
    passed: bool | None
    """Whether the control passed; None if there is too little to judge."""
    says: str
    """The outcome in one sentence, with its numbers."""
    numbers: dict[str, Any]

    def fields(self) -> dict[str, Any]:
        """Return the outcome as plain values."""
        return asdict(self)


class _Permuted(Recorder):
    """Measures every block with its values permuted over tokens, differently in every head."""

    def __init__(self, thresholds: ThresholdConfig, seed: int) -> None:
        super().__init__(thresholds)
        self.seed, self.images_taken = seed, 0

    def attention(self, view: BlockView) -> None:
        """Measure one block's heads with permuted values."""
        batch, heads, n = view.q.shape[:3]
        order = torch.stack(
            [
                torch.rand(
                    heads, n, generator=generator(self.seed, f"permutation {self.images_taken + image} {view.index}")
                ).argsort(-1)
                for image in range(batch)
            ]
        )
        index = order.to(view.v.device)[..., None].expand(-1, -1, -1, view.v.shape[-1])
        v = torch.cat((view.v[:, :, :n].gather(2, index), view.v[:, :, n:]), dim=2)
        super().attention(replace(view, v=v, raw_v=None, output=None))

    def take(self, order: NDArray[np.int64], images: Tensor | None = None) -> Records:
        """Take the records; images after these get other permutations."""
        self.images_taken += len(order)
        return super().take(order, images)


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
    """Compare labels before and after each head's values are permuted; columns that are not tokens are left out."""
    before, after = (
        records_of(model, images, recorder) for recorder in (Recorder(thresholds), _Permuted(thresholds, seed))
    )
    valued = ~np.isin(before.heads["sink_type"], (TokenType.NULL, TokenType.KV_BIAS))
    labels_before, labels_after = (apply(rule, records.heads) for records in (before, after))
    kept = {}
    for label in (Label.NOP, Label.BROADCAST):
        events = (labels_before == label) & valued
        kept[label] = (int(events.sum()), float((labels_after == label)[events].mean()) if events.any() else nan)
    (nops, nop_left), (broadcasts, broadcast_kept) = kept[Label.NOP], kept[Label.BROADCAST]
    numbers = {
        "images": len(images),
        "nop_events": nops,
        "nop_left": nop_left,
        "broadcast_events": broadcasts,
        "broadcast_kept": broadcast_kept,
    }
    sentence = "; ".join(
        [
            f"{nop_left:.0%} of {nops} NOP labels left" if nops else "no NOP label",
            f"{broadcast_kept:.0%} of {broadcasts} broadcast labels kept" if broadcasts else "no broadcast label",
        ]
    )
    judged = [nop_left <= NOP_LEFT_MAX] * (nops >= FEWEST_EVENTS)
    judged += [broadcast_kept >= BROADCAST_KEPT_MIN] * (broadcasts >= FEWEST_EVENTS)
    unsure = "" if judged else f"; at least {FEWEST_EVENTS} of one label are needed"
    return Outcome("permuted values", all(judged) if judged else None, sentence + unsure, numbers)


def donor_gain(heads: pl.DataFrame) -> Estimate:
    """Return how much more the donor's value moves outputs toward the donor than a random direction does.

    This is the median difference of cosines over broadcast heads, with an interval from a bootstrap over blocks.
    """
    broadcast = heads.filter(pl.col("counts") & (pl.col("class") == "broadcast"))
    donor, rotated = (
        broadcast.filter(pl.col("edit") == edit.name).select("block", "head", "donor_cosine")
        for edit in (DONOR, ROTATED)
    )
    both = donor.join(rotated, on=["block", "head"], suffix="_rotated").sort("block", "head")
    if not len(both):
        return Estimate(nan)
    gains = (both["donor_cosine"] - both["donor_cosine_rotated"]).to_numpy()
    return over_blocks(both["block"].to_numpy(), lambda weights: weighted_median(gains, weights))


def donor_direction(heads: pl.DataFrame) -> Outcome:
    """Judge whether the payload of broadcast heads carries content."""
    gain = donor_gain(heads)
    numbers = gain.fields("donor_gain")
    if np.isnan(gain.value):
        return Outcome(
            "donor", None, "no broadcast head was edited with both a donor's value and a random direction", numbers
        )
    sentence = f"cosine toward the donor minus that of a random direction: {gain.value:+.3f}"
    if np.isnan(gain.low):
        return Outcome("donor", None, f"{sentence} (too few blocks for an interval)", numbers)
    positive = gain.low > 0
    content = "the payload carries content" if positive else "no evidence of content"
    return Outcome("donor", positive, f"{sentence} [{gain.low:+.3f}, {gain.high:+.3f}]; {content}", numbers)

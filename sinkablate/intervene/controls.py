"""The controls that must come out as stated, or the report says so in its first line.

    permuted values    NOP labels vanish, broadcast labels survive: that label alone is no evidence of content
    random network     every event is broadcast, none NOP; the donor's direction and the gain over local size are null
    donor              moves outputs towards the donor more than a random direction does, else there is no content
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import nan
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn

from sinkablate.config import SelectionConfig, ThresholdConfig
from sinkablate.diagnostics.labels import Labels, is_event
from sinkablate.diagnostics.probe import undisturbed
from sinkablate.diagnostics.records import Recorder, Records
from sinkablate.diagnostics.rules import Label, Rule, apply
from sinkablate.diagnostics.tap import Tap
from sinkablate.diagnostics.view import BlockView
from sinkablate.intervene.judging import no_judge
from sinkablate.intervene.rows import Editor
from sinkablate.intervene.selection import Plan, choose_heads, head_class
from sinkablate.intervene.tables import head_table, row_table, validation_table
from sinkablate.intervene.validation import Estimate, over_blocks, weighted_median
from sinkablate.intervene.values import collect
from sinkablate.vit.anatomy import sharpen
from sinkablate.vit.init import generator
from sinkablate.vit.tokens import TokenType

NOP_LEFT_MAX = 0.2
"""NOP labels have vanished when at most this share is left."""
BROADCAST_KEPT_MIN = 0.8
"""Broadcast labels survive when at least this share is kept."""
BROADCAST_MIN = 0.95
"""Every event of a random network is broadcast when at least this share is, and none NOP."""
NULL_COSINE = 0.1
"""A median difference of cosines up to this size is null, whatever its interval."""
FACTORS = tuple(2.0 ** power for power in range(11))
REFINED = 6
"""Halvings of the interval between the two factors around the model's event rate."""
SEARCHED = 16
"""Images on which the factor is looked for."""


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
        self.seed, self.first = seed, 0

    def attention(self, view: BlockView) -> None:
        """Measure one block's heads with permuted values."""
        batch, heads, n = view.q.shape[:3]
        order = torch.stack([torch.rand(heads, n, generator=generator(
            self.seed, f"permutation {self.first + image} {view.index}")).argsort(-1) for image in range(batch)])
        index = order.to(view.v.device)[..., None].expand(-1, -1, -1, view.v.shape[-1])
        v = torch.cat((view.v[:, :, :n].gather(2, index), view.v[:, :, n:]), dim=2)
        super().attention(replace(view, v=v, raw_v=None, output=None))


def records_of(model: nn.Module, images: Sequence[Tensor], recorder: Recorder) -> Records:
    """Measure images (1, C, H, W), one at a time."""
    parts = []
    with undisturbed(model), Tap(model, recorder) as tap:
        for number, image in enumerate(images):
            if isinstance(recorder, _Permuted):
                recorder.first = number
            tap.run(image)
            parts.append(recorder.take(np.array([number])))
    return Records.merge(parts)


def permuted_values(model: nn.Module, images: Sequence[Tensor], rule: Rule, thresholds: ThresholdConfig,
                    seed: int) -> Outcome:
    """Labels before and after each head's values are permuted over tokens; null columns, which have none, aside."""
    before, after = (records_of(model, images, recorder)
                     for recorder in (Recorder(thresholds), _Permuted(thresholds, seed)))
    valued = before.heads["sink_type"] != TokenType.NULL
    was, now = (apply(rule, records.heads) for records in (before, after))
    kept = {}
    for label in (Label.NOP, Label.BROADCAST):
        events = (was == label) & valued
        kept[label] = (int(events.sum()), float((now == label)[events].mean()) if events.any() else nan)
    (nops, nop_left), (broadcasts, broadcast_kept) = kept[Label.NOP], kept[Label.BROADCAST]
    numbers = {"images": len(images), "nop_events": nops, "nop_left": nop_left, "broadcast_events": broadcasts,
               "broadcast_kept": broadcast_kept}
    if not nops + broadcasts:
        return Outcome("permuted values", None, "no labelled event to permute", numbers)
    passed = not (nop_left > NOP_LEFT_MAX or broadcast_kept < BROADCAST_KEPT_MIN)
    return Outcome("permuted values", passed, f"{_share(nop_left)} of {nops} NOP labels left, "
                   f"{_share(broadcast_kept)} of {broadcasts} broadcast labels kept", numbers)


def random_network(model: nn.Module, images: Sequence[Tensor], rule: Rule, thresholds: ThresholdConfig,
                   target: float, seed: int) -> Outcome:
    """A network that has learned nothing, its logits sharpened until it has as many events as the model.

    Args:
        model: With random weights, on its device; sharpened in place.
        images: (1, C, H, W) each.
        rule: Of the events.
        thresholds: Of the quantities.
        target: Events per image of the model.
        seed: Of every draw.
    """
    if not target:
        return Outcome("random network", None, "the model has no event to match", {"events_per_image": 0.0})
    factor = _sharpen_to(model, images[:SEARCHED], rule, thresholds, target)
    records = records_of(model, images, Recorder(thresholds))
    labels = apply(rule, records.heads)
    events = {label.name.lower(): int((labels == label).sum()) for label in (Label.NOP, Label.BROADCAST, Label.OTHER)}
    numbers: dict[str, Any] = {"images": len(images), "factor": factor, "events_per_image_of_model": target,
                               "events_per_image": events_per_image(labels), **events}
    found = f"logits x {factor:.3g}, {numbers['events_per_image']:.2f} events per image (the model: {target:.2f})"
    if not sum(events.values()):
        return Outcome("random network", None, f"no event at any factor up to {FACTORS[-1]:g}", numbers)
    heads = _edit(model, images, records, labels, rule, thresholds, seed)
    numbers |= _of_random(heads)
    low, high = numbers["donor_gain_low"], numbers["donor_gain_high"]
    null = not (abs(numbers["donor_gain"]) > NULL_COSINE and (np.isnan(low) or low > 0 or high < 0))
    gain = [numbers["delta_auc_low"], numbers["delta_auc_high"]]
    null &= bool(np.isnan(gain).any()) or gain[0] <= 0 <= gain[1]
    all_broadcast = not events["nop"] and events["broadcast"] >= BROADCAST_MIN * sum(events.values())
    return Outcome("random network", all_broadcast and null, f"{found}: {events['broadcast']} broadcast, {events['nop']} "
                   f"NOP, {events['other']} other{_told(numbers)}", numbers)


def _told(numbers: dict[str, Any]) -> str:
    """The rest of the sentence, without what is undefined."""
    parts = {"donor over random direction {:+.3f} in cosine": numbers["donor_gain"],
             "gain of effect over local size within blocks {:+.2f}": numbers["delta_auc"],
             "effect of zeroing against local size {:+.2f} (rank correlation)": numbers["effect_by_local_size"],
             "against depth {:+.2f}": numbers["effect_by_depth"]}
    return "".join(f"; {text.format(value)}" for text, value in parts.items() if not np.isnan(value))


def events_per_image(labels: Labels) -> float:
    """Events per image in blocks >= 1, or in the only block there is."""
    later = labels[:, 1:] if labels.shape[1] > 1 else labels
    return float(is_event(later).sum(axis=(1, 2)).mean())


def _sharpen_to(model: nn.Module, images: Sequence[Tensor], rule: Rule, thresholds: ThresholdConfig,
                target: float) -> float:
    """Sharpen a model until it has so many events per image, or as near as it gets; returns the factor."""
    rates: dict[float, float] = {}
    now = 1.0

    def rate(factor: float) -> float:
        nonlocal now
        sharpen(model, factor / now)
        now = factor
        rates[factor] = events_per_image(apply(rule, records_of(model, images, Recorder(thresholds)).heads))
        return rates[factor]

    low = high = FACTORS[0]
    for factor in FACTORS:
        low, high = high, factor
        if rate(factor) >= target:
            break
    for _ in range(REFINED if rates[high] >= target and high > low else 0):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if rate(middle) >= target else (middle, high)
    best = min(rates, key=lambda factor: (abs(rates[factor] - target), factor))
    sharpen(model, best / now)
    return best


def _edit(model: nn.Module, images: Sequence[Tensor], records: Records, labels: Labels, rule: Rule,
          thresholds: ThresholdConfig, seed: int) -> pl.DataFrame:
    """The head table of a random network."""
    few = SelectionConfig(min_events=2, min_class_events=2)
    names = [f"control {number}" for number in range(len(images))]
    stored: dict[str, NDArray[Any]] = {**records.heads, "image_names": np.array(names),
                                       "image_numbers": np.arange(len(images))}
    stored["sink_idx"] = stored["sink_idx"].astype(np.int64)
    plan = Plan.of(stored, rule, choose_heads(labels, few), everywhere=False, seed=seed)
    classes = {(block, head): head_class(labels[:, block, head]) for block, head in plan.heads}
    rows: list[dict[str, Any]] = []
    if plan.heads:
        with undisturbed(model):
            editor = Editor(model, plan, collect(model, plan, images),
                            ("zero_value", "mean_value", "donor_value", "rotated_value"), no_judge)
            rows = [{"place": number, **row} for number, image in enumerate(images) if plan.edited(number)
                    for row in editor.rows(number, image)]
    return head_table(row_table(rows), classes, few)


def _of_random(heads: pl.DataFrame) -> dict[str, float]:
    """What the edits of a random network say."""
    zero = heads.filter(pl.col("edit") == "zero_value")
    gain = donor_gain(heads)
    checked = validation_table(heads).filter(pl.col("edit") == "zero_value")
    delta = {name: checked[name][0] if len(checked) else nan
             for name in ("delta_auc", "delta_auc_low", "delta_auc_high")}
    return {**gain.fields("donor_gain"), **delta, "effect_by_local_size": _rank(zero, "local_size"),
            "effect_by_depth": _rank(zero, "block")}


def _rank(heads: pl.DataFrame, column: str) -> float:
    if len(heads) < 3 or heads[column].n_unique() < 2 or heads["effect"].n_unique() < 2:
        return nan
    return float(spearmanr(heads["effect"], heads[column]).statistic)


def donor_gain(heads: pl.DataFrame) -> Estimate:
    """How much nearer to the donor its value moves outputs than a random direction does: median over broadcast heads.

    The difference of cosines, with an interval from a bootstrap over blocks.
    """
    some = heads.filter(pl.col("counts") & (pl.col("class") == "broadcast"))
    donor, rotated = (some.filter(pl.col("edit") == f"{name}_value").select("block", "head", "donor_cosine")
                      for name in ("donor", "rotated"))
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
    positive = gain.value > 0 if np.isnan(gain.low) else gain.low > 0
    span = "" if np.isnan(gain.low) else f" [{gain.low:+.3f}, {gain.high:+.3f}]"
    content = "the payload carries content" if positive else "no content"
    return Outcome("donor", positive, f"donor over random direction {gain.value:+.3f}{span} in cosine: {content}",
                   numbers)


def _share(value: float) -> str:
    return "none" if np.isnan(value) else f"{value:.0%}"

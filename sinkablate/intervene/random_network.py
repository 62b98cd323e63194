"""The control with an untrained network: the same architecture with random weights and sharpened logits."""

from collections.abc import Sequence
from math import nan
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import spearmanr
from torch import Tensor, nn

from sinkablate.config import SelectionConfig, ThresholdConfig
from sinkablate.diagnostics.labels import Labels, apply, is_event
from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.diagnostics.recorder import Recorder
from sinkablate.diagnostics.records import Records
from sinkablate.diagnostics.rules import Label, Rule
from sinkablate.intervene.controls import FEWEST_EVENTS, Outcome, donor_gain, records_of
from sinkablate.intervene.editor import Editor
from sinkablate.intervene.edits import DONOR, MEAN, ROTATED, ZERO
from sinkablate.intervene.effects import no_judge
from sinkablate.intervene.selection import Plan, choose_heads, head_class
from sinkablate.intervene.tables import head_table, later_heads, row_table, validation_table
from sinkablate.intervene.values import collect
from sinkablate.vit.queries import sharpen
from sinkablate.vit.tokens import TokenType

BROADCAST_MIN = 0.95
"""All events of a random network count as broadcast if at least this share is, and none is NOP."""
RATE_TOLERANCE = 0.25
"""Largest relative difference from the model's events per image."""
NULL_COSINE = 0.1
"""A median difference of cosines up to this size counts as null, whatever its interval."""
FACTORS = tuple(2.0**power for power in range(11))
REFINED = 6
"""Bisections between the two factors around the model's event rate."""
SEARCHED = 16
"""Number of images used to find the factor."""


def random_network(
    model: nn.Module, images: Sequence[Tensor], rule: Rule, thresholds: ThresholdConfig, target: float, seed: int
) -> Outcome:
    """Judge an untrained network whose logits are sharpened until it has as many events as the model.

    Args:
        model: The network with random weights, on its device; it is sharpened in place.
        images: The images, (1, C, H, W) each.
        rule: Rule of the events.
        thresholds: Thresholds of the quantities.
        target: Events per image of the trained model.
        seed: Seed of every draw.
    """
    if not target:
        return Outcome("random network", None, "the model has no events to match", {"events_per_image": 0.0})
    factor = _sharpen_to(model, images[:SEARCHED], rule, thresholds, target)
    records = records_of(model, images, Recorder(thresholds))
    labels = apply(rule, records.heads)
    valued = records.heads["sink_type"] != TokenType.NULL  # which is NOP by definition
    events = {
        label.name.lower(): int(((labels == label) & valued).sum())
        for label in (Label.NOP, Label.BROADCAST, Label.OTHER)
    }
    numbers: dict[str, Any] = {
        "images": len(images),
        "factor": factor,
        "events_per_image_of_model": target,
        "events_per_image": events_per_image(labels),
        **events,
    }
    setting = f"logits x {factor:.3g}, {numbers['events_per_image']:.2f} events per image (trained model: {target:.2f})"
    if not sum(events.values()):
        return Outcome("random network", None, f"no event at any factor up to {FACTORS[-1]:g}", numbers)
    heads = _edit(model, images, records, labels, rule, thresholds, seed)
    numbers |= _of_random(heads, labels.shape[1])
    all_broadcast = not events["nop"] and events["broadcast"] >= BROADCAST_MIN * sum(events.values())
    counts = f"{events['broadcast']} broadcast, {events['nop']} NOP, {events['other']} other"
    passed, unsure = (_is_null(numbers) if all_broadcast else False), ""
    if sum(events.values()) < FEWEST_EVENTS:
        passed, unsure = None, f"; at least {FEWEST_EVENTS} events are needed"
    elif abs(numbers["events_per_image"] - target) > RATE_TOLERANCE * target:
        passed, unsure = None, "; no factor gives it as many events as the model"
    elif passed is None:
        unsure = "; too few blocks to judge whether it is null"
    return Outcome("random network", passed, f"{setting}: {counts}{_rest_of_sentence(numbers)}{unsure}", numbers)


def _is_null(numbers: dict[str, Any]) -> bool | None:
    """Return whether both the donor's gain and the gain over local size are null; None if this cannot be judged."""
    gain, low, high = (numbers[f"donor_gain{end}"] for end in ("", "_low", "_high"))
    if np.isnan(gain):
        return None
    if abs(gain) > NULL_COSINE and (np.isnan(low) or low > 0 or high < 0):
        return None if np.isnan(low) else False
    gained = [numbers["delta_auc_low"], numbers["delta_auc_high"]]
    return bool(np.isnan(gained).any()) or gained[0] <= 0 <= gained[1]


def _rest_of_sentence(numbers: dict[str, Any]) -> str:
    """Format the numbers that are defined, for the end of the sentence."""
    parts = {
        "cosine toward the donor minus that of a random direction: {:+.3f}": numbers["donor_gain"],
        "the AUC of the effect within blocks exceeds that of the local size by {:+.2f}": numbers["delta_auc"],
        "rank correlation of the effect of zeroing with local size {:+.2f}": numbers["effect_by_local_size"],
        "rank correlation of the effect of zeroing with depth {:+.2f}": numbers["effect_by_depth"],
    }
    return "".join(f"; {text.format(value)}" for text, value in parts.items() if not np.isnan(value))


def events_per_image(labels: Labels) -> float:
    """Return the number of events per image in blocks >= 1, or in the only block of a model."""
    later = labels[:, 1:] if labels.shape[1] > 1 else labels
    return float(is_event(later).sum(axis=(1, 2)).mean())


def _sharpen_to(
    model: nn.Module, images: Sequence[Tensor], rule: Rule, thresholds: ThresholdConfig, target: float
) -> float:
    """Sharpen a model until its events per image are as close to the target as possible; return the factor."""
    rates: dict[float, float] = {}
    current = 1.0

    def rate(factor: float) -> float:
        nonlocal current
        sharpen(model, factor / current)
        current = factor
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
    sharpen(model, best / current)
    return best


def _edit(
    model: nn.Module,
    images: Sequence[Tensor],
    records: Records,
    labels: Labels,
    rule: Rule,
    thresholds: ThresholdConfig,
    seed: int,
) -> pl.DataFrame:
    """Edit the heads of a random network and return their table."""
    few = SelectionConfig(min_events=2, min_class_events=2)
    plan = Plan.of_records(records, rule, choose_heads(labels, few), everywhere=False, seed=seed, name="control")
    classes = {(block, head): head_class(labels[:, block, head]) for block, head in plan.heads}
    rows: list[dict[str, Any]] = []
    if plan.heads:
        # float64: with LayerScale initialized at 1e-5, effects are close to the rounding error of fp32
        with measurement_mode(model):
            model, images = model.double(), [image.double() for image in images]
            editor = Editor(model, plan, collect(model, plan, images), [ZERO, MEAN, DONOR, ROTATED], no_judge)
            rows = [
                {"place": number, **row}
                for number, image in enumerate(images)
                if plan.edited(number)
                for row in editor.rows(number, image)
            ]
    return head_table(row_table(rows), classes, few)


def _of_random(heads: pl.DataFrame, depth: int) -> dict[str, float]:
    """Summarize the edits of a random network."""
    zero = heads.filter(pl.col("edit") == ZERO.name)
    gain = donor_gain(later_heads(heads, depth))
    checked = validation_table(heads, depth).filter(pl.col("edit") == ZERO.name)
    delta = {
        name: checked[name][0] if len(checked) else nan for name in ("delta_auc", "delta_auc_low", "delta_auc_high")
    }
    return {
        **gain.fields("donor_gain"),
        **delta,
        "effect_by_local_size": _rank(zero, "local_size"),
        "effect_by_depth": _rank(zero, "block"),
    }


def _rank(heads: pl.DataFrame, column: str) -> float:
    if len(heads) < 3 or heads[column].n_unique() < 2 or heads["effect"].n_unique() < 2:
        return nan
    return float(spearmanr(heads["effect"], heads[column]).statistic)

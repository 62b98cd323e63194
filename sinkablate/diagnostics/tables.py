"""Tables of records: one row per block and head, and one row per block."""

from collections.abc import Sequence
from math import nan

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.by_type import column_counts, columns_by_type
from sinkablate.diagnostics.heads import payload_constancy
from sinkablate.diagnostics.labels import Labels, is_event, label_all, qualified_all
from sinkablate.diagnostics.norms import norm_summary, text_norm_summary
from sinkablate.diagnostics.records import Array, Records
from sinkablate.diagnostics.rules import DEFAULT_RULE, VERDICTS, rules

INDICES = ("sink_idx", "sink_type")
"""Quantities that are indices: tables contain their mode instead of their median."""

EVENT_MEDIANS = ("ratio_out", "ratio_head", "sink_head_norm", "stable_rank")
"""Quantities whose median over the events of a rule is in the table of heads, next to those that decide its labels; the
atlas shows them."""


def mean_of(values: Array) -> float:
    """Return the mean of the defined values; NaN if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else nan


def head_table(records: Records, thresholds: ThresholdConfig, blocks: list[int] | None = None) -> pl.DataFrame:
    """Return one row per block and head.

    For every rule: event frequency, label counts, and broadcast events with a sufficient `rel_update` as
    `<rule>_broadcast_qualified`. For every rule with figures: `<rule>_event_median_<quantity>` over its events.
    `median_<quantity>` is over all defined images, `event_median_<quantity>` over the images with a `causal` event.
    `sink_idx` and `token_type` are modes. `specialisation` is the binary entropy of the `causal` frequency in bits, 0
    for a head that always or never sinks; `location_entropy` that of `sink_idx` over the logarithm of the number of
    columns.

    Args:
        records: The measurements.
        thresholds: Thresholds of the rules.
        blocks: Indices of the measured blocks; None means consecutive from 0.
    """
    n, count, heads = records.heads["mass"].shape
    grid = np.indices((count, heads)).reshape(2, -1)
    columns: dict[str, NDArray[np.generic]] = {
        "block": grid[0] if blocks is None else np.array(blocks)[grid[0]],
        "head": grid[1],
        "images": np.full(count * heads, n),
    }
    labels = label_all(records, thresholds)
    worthy = qualified_all(labels, records, thresholds)
    for rule, verdicts in labels.items():
        columns |= _label_columns(rule, verdicts, worthy[rule])
    for name, values in records.heads.items():
        if name not in INDICES and not name.startswith("routed_frac_at_"):
            columns[f"median_{name}"] = _median_over_images(values).reshape(-1)
    event = is_event(labels[DEFAULT_RULE])
    by_rule: dict[str, NDArray[np.generic]] = {}
    for shown in (rule for rule in rules(thresholds) if "figures" in rule.shown):
        names = tuple(dict.fromkeys((*EVENT_MEDIANS, *shown.limits)))
        by_rule |= _event_medians(f"{shown.name}_event_median_", is_event(labels[shown.name]), records, names)
    for name in ("ratio_out", "stable_rank"):
        columns[f"event_median_{name}"] = by_rule[f"{DEFAULT_RULE}_event_median_{name}"]
    columns |= _event_medians("event_median_", event, records, ("rel_update",)) | by_rule
    indices = {name: records.heads[name].reshape(n, -1).astype(np.int64) for name in INDICES}
    columns["sink_idx"] = _mode(indices["sink_idx"])
    columns["token_type"] = _type_names(records)[_mode(indices["sink_type"])]
    columns["location_entropy"] = _location_entropy(indices["sink_idx"], records)
    columns["specialisation"] = _binary_entropy(event.reshape(n, -1).mean(axis=0))
    columns["payload_constancy"] = constancy(records).reshape(-1)
    return pl.DataFrame(columns)


def _label_columns(rule: str, verdicts: Labels, qualified_: NDArray[np.bool_]) -> dict[str, NDArray[np.generic]]:
    flat = verdicts.reshape(len(verdicts), -1)
    counts = {f"{rule}_{label.name.lower()}": (flat == label).sum(axis=0) for label in VERDICTS}
    return {
        f"{rule}_frequency": is_event(flat).mean(axis=0),
        **counts,
        f"{rule}_broadcast_qualified": qualified_.reshape(len(verdicts), -1).sum(axis=0),
    }


def _event_medians(
    prefix: str, event: NDArray[np.bool_], records: Records, names: Sequence[str]
) -> dict[str, NDArray[np.generic]]:
    """Return the median of each quantity over the images on which a head has an event; NaN without events."""
    return {
        f"{prefix}{name}": _median_over_images(np.where(event, records.heads[name], np.float32(nan))).reshape(-1)
        for name in names
    }


def block_table(records: Records, thresholds: ThresholdConfig, blocks: list[int] | None = None) -> pl.DataFrame:
    """Return one row per block.

    By token type: attention mass, share of the (image, head) pairs whose dominant column has this type and its chance
    level, events of a rule, and token norms. Token variance before and after; range, kurtosis and massive activations.
    Arguments as for `head_table`.
    """
    labels = label_all(records, thresholds)
    followed = {rule.name: labels[rule.name] for rule in rules(thresholds) if rule.handoff}
    rows = []
    for index in range(records.norms.shape[1]):
        row: dict[str, float] = {"block": index if blocks is None else blocks[index]}
        row |= columns_by_type(records, followed, index)
        row |= {
            f"norm_{kind}_{name}": value
            for kind, stats in norms_of(records, index, thresholds).items()
            for name, value in stats.items()
        }
        row |= {name: mean_of(values[:, index]) for name, values in records.tokens.items()}
        row |= {
            f"largest_{name}": float(np.nanmax(records.tokens[name][:, index]))
            for name in ("max_abs", "max_abs_attn")
            if name in records.tokens
        }
        rows.append(row)
    return pl.DataFrame(rows)


def norms_of(records: Records, index: int, thresholds: ThresholdConfig) -> dict[str, dict[str, float]]:
    """Summarize the token norms of one measured block by token type; see `norm_summary`."""
    norms, limits = torch.from_numpy(records.norms[:, index]), (thresholds.outlier_sd, thresholds.outlier_norm)
    if records.token_types is None:
        summary = norm_summary(norms, records.layout, *limits)
    else:
        summary = text_norm_summary(norms, torch.from_numpy(records.token_types), *limits)
    return {kind: {name: float(value) for name, value in stats.items()} for kind, stats in summary.items()}


def constancy(records: Records) -> Array:
    """Return the payload constancy of every head, (L, H)."""
    values: Array = (
        payload_constancy(
            torch.from_numpy(records.payload_sum), torch.from_numpy(records.payload_squares), len(records.order)
        )
        .float()
        .numpy()
    )
    return values


def _type_names(records: Records) -> NDArray[np.str_]:
    """Return an array with the name of each token type at the index that is its code."""
    names = [""] * (max(records.kinds) + 1)
    for kind in records.kinds:
        names[kind] = kind.label
    return np.array(names)


def _mode(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the most frequent value of each column of (n, m); the smallest in a tie."""
    return np.array([np.bincount(column).argmax() for column in values.T])


def _location_entropy(indices: NDArray[np.int64], records: Records) -> NDArray[np.float64]:
    """Return the entropy of each column of (n, L H) over the logarithm of the largest number of the block's columns."""
    count = records.norms.shape[1]
    most = [np.sum(list(column_counts(records, index).values()), axis=0).max() for index in range(count)]
    scale = np.repeat([np.log(number) if number > 1 else nan for number in most], indices.shape[1] // count)
    shares = [np.bincount(column) / len(column) for column in indices.T]
    return np.array([-(p[p > 0] * np.log(p[p > 0])).sum() for p in shares]) / scale + 0.0


def _binary_entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """-p log2 p - (1 - p) log2 (1 - p), bits."""
    inside = np.clip(p, 1e-300, 1), np.clip(1 - p, 1e-300, 1)
    return -(p * np.log2(inside[0]) + (1 - p) * np.log2(inside[1])) + 0.0


def _median_over_images(values: Array) -> Array:
    """Return the median over the first axis, ignoring NaN; NaN where no value is defined.

    It equals `np.nanmedian`, which takes four times as long.
    """
    ordered = np.sort(values, axis=0)  # NaN comes last
    count = (~np.isnan(values)).sum(axis=0, keepdims=True)
    low, high = (np.take_along_axis(ordered, index, axis=0)[0] for index in (np.maximum(count - 1, 0) // 2, count // 2))
    median: Array = np.where(count[0] > 0, (low + high) / 2, np.float32(nan))
    return median

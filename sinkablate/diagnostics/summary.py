"""From records to what is reported: scalars for the logger, one row per head, one row per block.

Events per image are summed over heads and blocks >= 1 and averaged over images; block 0 sits on raw patch embeddings
and is counted apart.
"""

import math
import warnings

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.heads import payload_constancy
from sinkablate.diagnostics.norms import norm_summary
from sinkablate.diagnostics.records import Array, Records
from sinkablate.diagnostics.rules import Label, Rule, apply, effective, rules
from sinkablate.vit.tokens import TokenType

INDICES = ("sink_idx", "sink_type")
"""Quantities that are numbers of something: their mode is reported, not their median."""

LABELS = (Label.NOP, Label.BROADCAST, Label.OTHER, Label.UNDEFINED)


def rules_for(records: Records, thresholds: ThresholdConfig) -> tuple[Rule, ...]:
    """The published rules, and the effective twins of the default ones where an output gate exists."""
    published = rules(thresholds)
    gated = "gated_ratio_out" in records.heads
    twins = tuple(effective(rule) for rule in published if rule.name in ("causal", "adaptive")) if gated else ()
    return (*published, *twins)


def label_all(records: Records, thresholds: ThresholdConfig) -> dict[str, NDArray[np.int8]]:
    """Rule name -> labels (n, L, H)."""
    return {rule.name: apply(rule, records.heads) for rule in rules_for(records, thresholds)}


def scalars(records: Records, thresholds: ThresholdConfig) -> dict[str, float]:
    """Aggregates under sink/, norm/ and gate/, never one per head."""
    labels = label_all(records, thresholds)
    out = _counts(labels)
    heads = records.heads
    out["sink/mass_max"] = float(heads["mass"].mean(axis=0).max())
    for name in ("routed_frac", "entropy", "row_mass", "null_mass", "dead_rows", "group_routed_frac",
                 "topk_routed_frac", "rel_update", "quiet_frac"):
        out[f"sink/{name}"] = _mean(heads[name])
    for name in ("ratio_out", "ratio_head", "stable_rank"):
        out[f"sink/{name}"] = _median(heads[name][:, 1:] if heads[name].shape[1] > 1 else heads[name])
    out["sink/payload_constancy"] = _median(_constancy(records))
    for name, mass in records.mass.items():
        out[f"sink/mass_{name}"] = _mean(mass)
    for block in range(records.norms.shape[1]):
        out[f"sink/events/block{block}"] = float((labels["causal"][:, block] != Label.NONE).sum(axis=-1).mean())
        out[f"sink/mass_max/block{block}"] = float(heads["mass"][:, block].mean(axis=0).max())
    out |= _norm_scalars(records, thresholds)
    out |= {f"gate/{name}": _mean(heads[f"gate_{name}"]) for name in ("open", "corr") if f"gate_{name}" in heads}
    return {name: value for name, value in out.items() if not math.isnan(value)}


def _counts(labels: dict[str, NDArray[np.int8]]) -> dict[str, float]:
    """Events and labels per image; `causal` under plain names, every other rule under its own."""
    out = {}
    for rule, verdicts in labels.items():
        prefix = "sink" if rule == "causal" else f"sink/{rule}"
        later, first = verdicts[:, 1:], verdicts[:, :1]
        for where, some in ((prefix, later), (f"{prefix}/first_block", first)):
            for label in LABELS:
                out[f"{where}/{label.name.lower()}"] = float((some == label).sum(axis=(1, 2)).mean())
            events = np.isin(some, (Label.NOP, Label.BROADCAST, Label.OTHER))
            out[f"{where}/events"] = float(events.sum(axis=(1, 2)).mean())
    return out


def _norm_scalars(records: Records, thresholds: ThresholdConfig) -> dict[str, float]:
    """Token norms of the last block by type, of every block for CLS and the patches' tail."""
    last = records.norms.shape[1] - 1
    out = {}
    for block in range(last + 1):
        summary = _norms(records, block, thresholds)
        for kind, stats in summary.items():
            for name, value in stats.items():
                if block == last:
                    out[f"norm/{kind}_{name}"] = value
                if (kind, name) in (("cls", "mean"), ("register", "mean"), ("patch", "p99")):
                    out[f"norm/{kind}_{name}/block{block}"] = value
    out["norm/register_cosine"] = _mean(records.tokens["register_cosine"][:, last])
    return out


def head_table(records: Records, thresholds: ThresholdConfig) -> pl.DataFrame:
    """One row per block and head: event frequency and label counts of every rule, medians over images.

    `median_<quantity>` ignores undefined images; `sink_idx` and `sink_type` are modes; `payload_constancy` is over
    all images.
    """
    n, blocks, heads = records.heads["mass"].shape
    grid = np.indices((blocks, heads)).reshape(2, -1)
    columns: dict[str, NDArray[np.generic]] = {"block": grid[0], "head": grid[1], "images": np.full(blocks * heads, n)}
    for rule, verdicts in label_all(records, thresholds).items():
        flat = verdicts.reshape(n, -1)
        columns[f"{rule}_frequency"] = np.isin(flat, LABELS[:3]).mean(axis=0)
        for label in LABELS:
            columns[f"{rule}_{label.name.lower()}"] = (flat == label).sum(axis=0)
    for name, values in records.heads.items():
        if name not in INDICES:
            columns[f"median_{name}"] = _median_over_images(values).reshape(-1)
    for name in INDICES:
        columns[name] = _mode(records.heads[name].reshape(n, -1).astype(np.int64))
    names = np.array([kind.label for kind in TokenType])
    columns["token_type"] = names[columns.pop("sink_type").astype(np.int64)]
    columns["payload_constancy"] = _constancy(records).reshape(-1)
    return pl.DataFrame(columns)


def block_table(records: Records, thresholds: ThresholdConfig) -> pl.DataFrame:
    """One row per block: mass and norms by token type, token variance before and after."""
    rows = []
    for block in range(records.norms.shape[1]):
        row: dict[str, float] = {"block": block}
        row |= {f"mass_{kind}": _mean(mass[:, block]) for kind, mass in records.mass.items()}
        row |= {f"norm_{kind}_{name}": value for kind, stats in _norms(records, block, thresholds).items()
                for name, value in stats.items()}
        row |= {name: _mean(values[:, block]) for name, values in records.tokens.items()}
        rows.append(row)
    return pl.DataFrame(rows)


def _norms(records: Records, block: int, thresholds: ThresholdConfig) -> dict[str, dict[str, float]]:
    summary = norm_summary(torch.from_numpy(records.norms[:, block]), records.layout, thresholds.outlier_sd)
    return {kind: {name: float(value) for name, value in stats.items()} for kind, stats in summary.items()}


def _constancy(records: Records) -> Array:
    """Payload constancy of every head (L, H)."""
    n, blocks, heads, width = records.payload.shape
    flat = torch.from_numpy(records.payload.reshape(n, blocks * heads, width))
    return payload_constancy(flat).numpy().reshape(blocks, heads)


def _mode(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Most frequent value of each column of (n, m), the smallest among equals."""
    return np.array([np.bincount(column).argmax() for column in values.T])


def _median_over_images(values: Array) -> Array:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a head that is undefined on every image stays NaN
        return np.nanmedian(values, axis=0)


def _median(values: Array) -> float:
    defined = values[~np.isnan(values)]
    return float(np.median(defined)) if defined.size else float("nan")


def _mean(values: Array) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")

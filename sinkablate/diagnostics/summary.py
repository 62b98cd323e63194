"""Reduce records to the scalars that are logged.

Events per image are summed over heads and over the blocks that count (`counted`) and averaged over images. Block 0
reads raw patch embeddings, so it does not count unless it is the only block; its events are also counted separately.
"""

import math

import numpy as np
from numpy.typing import NDArray

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.counting import counted
from sinkablate.diagnostics.labels import Labels, is_event, label_all
from sinkablate.diagnostics.records import Array, Records
from sinkablate.diagnostics.rules import DEFAULT_RULE, VERDICTS, scalar_prefix
from sinkablate.diagnostics.tables import constancy, mean_of, norms_of


def scalars(records: Records, thresholds: ThresholdConfig) -> dict[str, float]:
    """Return the aggregates under sink/, norm/ and gate/; none of them describes a single head."""
    labels = label_all(records, thresholds)
    where = counted(range(records.norms.shape[1]))
    out = _counts(labels, where)
    heads = {name: values[:, where] for name, values in records.heads.items()}
    out["sink/mass_max"] = float(heads["mass"].mean(axis=0).max())
    for name in (
        "routed_frac",
        "entropy",
        "row_mass",
        "null_mass",
        "dead_rows",
        "group_routed_frac",
        "topk_routed_frac",
        "rel_update",
        "quiet_frac",
    ):
        out[f"sink/{name}"] = mean_of(heads[name])
    for name in ("ratio_out", "ratio_head", "stable_rank"):
        out[f"sink/{name}"] = _median(heads[name])
    out["sink/payload_constancy"] = _median(constancy(records)[where])
    for name, mass in records.mass.items():
        out[f"sink/mass_{name}"] = mean_of(mass[:, where])
    for block in range(records.norms.shape[1]):
        out[f"sink/events/block{block}"] = float(is_event(labels[DEFAULT_RULE][:, block]).sum(axis=-1).mean())
        out[f"sink/mass_max/block{block}"] = float(records.heads["mass"][:, block].mean(axis=0).max())
    out |= _norm_scalars(records, thresholds)
    out |= {f"gate/{name}": mean_of(heads[f"gate_{name}"]) for name in ("open", "corr") if f"gate_{name}" in heads}
    return {name: value for name, value in out.items() if not math.isnan(value)}


def _counts(labels: dict[str, Labels], where: NDArray[np.bool_]) -> dict[str, float]:
    """Return events and labels per image; those of the default rule do not contain its name."""
    verdicts = np.stack(list(labels.values()))
    marks = {label.name.lower(): verdicts == label for label in VERDICTS} | {"events": is_event(verdicts)}
    by_block = {name: mark.sum(axis=-1) for name, mark in marks.items()}  # (rules, images, blocks)
    later, first = (
        {name: numbers[:, :, blocks].sum(axis=-1).mean(axis=-1) for name, numbers in by_block.items()}
        for blocks in (where, slice(1))
    )
    return {
        f"{scalar_prefix(rule)}{suffix}/{name}": float(means[index])
        for index, rule in enumerate(labels)
        for suffix, part in (("", later), ("/first_block", first))
        for name, means in part.items()
    }


def _norm_scalars(records: Records, thresholds: ThresholdConfig) -> dict[str, float]:
    """Return token norms of the last block by type, and of every block for CLS, registers and the patches' tail."""
    last = records.norms.shape[1] - 1
    out = {}
    for block in range(last + 1):
        summary = norms_of(records, block, thresholds)
        for kind, stats in summary.items():
            for name, value in stats.items():
                if block == last:
                    out[f"norm/{kind}_{name}"] = value
                if (kind, name) in (("cls", "mean"), ("register", "mean"), ("patch", "p99")):
                    out[f"norm/{kind}_{name}/block{block}"] = value
    out["norm/register_cosine"] = mean_of(records.tokens["register_cosine"][:, last])
    return out


def _median(values: Array) -> float:
    defined = values[~np.isnan(values)]
    return float(np.median(defined)) if defined.size else float("nan")

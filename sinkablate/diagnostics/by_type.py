"""Numbers of one block by token type, from which the handoff of the sinks from CLS to other tokens is read."""

from collections.abc import Mapping
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sinkablate.diagnostics.labels import Labels, is_event
from sinkablate.diagnostics.records import Records

EXTRA = ("null", "kv_bias")
"""Types of the columns beyond the tokens; a block has at most one column of each, and it can always be dominant."""
Counts = dict[str, NDArray[np.int64]]


def column_counts(records: Records, index: int) -> Counts:
    """Return the number of key columns of each token type that each image or text has in one block, (n,) each."""
    n = len(records.order)
    counts = {kind.label: np.broadcast_to((records.types == kind).sum(axis=1), n) for kind in records.kinds}
    extra = {name: records.candidates[name][:, index].astype(np.int64) for name in EXTRA if name in counts}
    return counts | extra


def columns_by_type(records: Records, labels: Mapping[str, Labels], index: int) -> dict[str, float]:
    """Return the columns of `blocks.parquet` that belong to token types, for one block.

    Args:
        records: The measurements.
        labels: Rule -> labels (n, L, H), of the rules whose events are counted by type.
        index: Which of the measured blocks.
    """
    counts = column_counts(records, index)
    candidates = {name: number[:, index] for name, number in records.candidates.items()}
    columns, eligible = sum(counts.values()), sum(candidates.values())
    kinds = records.heads["sink_type"][:, index]
    row = {}
    for kind in records.kinds:
        name, count = kind.label, counts[kind.label]
        row[f"mass_{name}"] = _mean(records.mass[name][:, index])
        row[f"mass_per_token_{name}"] = _per_column(records.mass[name][:, index], count)
        row[f"dominant_{name}"] = float((kinds == kind).mean())
        row[f"chance_{name}"] = float((candidates[name] / eligible).mean())
        row[f"columns_{name}"] = float((count / columns).mean())
    for rule, verdicts in labels.items():
        event = is_event(verdicts[:, index])
        row[f"events_{rule}"] = float(event.sum(axis=-1).mean())
        for kind in records.kinds:
            name, hit = kind.label, event & (kinds == kind)
            row[f"events_{rule}_{name}"] = float(hit.sum() / event.sum()) if event.any() else nan
            row[f"events_{rule}_per_token_{name}"] = _per_column(hit.sum(axis=-1), counts[name])
    return row


def _mean(values: NDArray[Any]) -> float:
    """Return the mean of the defined values; NaN if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else nan


def _per_column(values: NDArray[Any], counts: NDArray[np.int64]) -> float:
    """Return the mean over images of a number (n,) divided by the number of columns (n,); NaN without columns."""
    exists = counts > 0
    return _mean(values[exists] / counts[exists])

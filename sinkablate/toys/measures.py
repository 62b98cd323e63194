"""Measures of a toy model's sinks, with the same tap, quantities and rules as for every other model."""

from collections.abc import Mapping
from itertools import product

import numpy as np
import torch
from torch import Tensor

from sinkablate.config import ThresholdConfig, ToyConfig
from sinkablate.diagnostics.geometry import spectral_spikes
from sinkablate.diagnostics.labels import label_all
from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.diagnostics.recorder import Recorder
from sinkablate.diagnostics.records import Records
from sinkablate.diagnostics.rules import ADAPTIVE_RULE, VERDICTS
from sinkablate.diagnostics.shares import divide
from sinkablate.diagnostics.tap import Tap
from sinkablate.diagnostics.view import BlockView
from sinkablate.toys.model import ToyTransformer
from sinkablate.toys.tasks import ToyTask


class _Watcher(Recorder):
    """Records the usual quantities, and those that only toys have."""

    def __init__(self, task: ToyTask, tokens: Tensor) -> None:
        super().__init__(ThresholdConfig())
        self.task, self.tokens = task, tokens
        self.measured: list[dict[str, float]] = []
        """One dictionary per head, block by block."""

    def attention(self, view: BlockView) -> None:
        """Record the attention of a block."""
        super().attention(view)
        config = self.task.config
        for head in range(config.heads):
            numbers: dict[str, float] = {}
            for measure in MEASURES[config.task]:
                numbers |= measure(view, self.task, self.tokens, head)
            self.measured.append(numbers)


def null_token(view: BlockView, task: ToyTask, tokens: Tensor, head: int = 0) -> dict[str, float]:
    """Measure the null token (column 0) of a NOP toy.

    Returns:
        The mean attention to it from tokens that must stay unchanged and from active tokens, and the norm of its
        projected value divided by the mean over the drawn tokens.
    """
    to_null = view.weights()[:, head, view.layout.num_prefix :, 0]
    rests = task.rests(tokens)
    norms = torch.linalg.vector_norm(torch.einsum("hcd,bhnd->bhnc", view.out_map, view.v), dim=-1)[:, head]
    drawn = norms[:, view.layout.num_prefix : view.layout.num_tokens]
    return {
        "attention_nop": float(to_null[rests].mean()),
        "attention_active": float(to_null[~rests].mean()),
        "value_ratio": float(norms[:, 0].mean() / drawn.mean()),
    }


def source_token(view: BlockView, task: ToyTask, tokens: Tensor, head: int = 0) -> dict[str, float]:
    """Return the mean attention that the strongest column and the source token of a broadcast receive in one head."""
    columns = view.weights().mean(-2)[:, head]
    source = task.source(tokens) + view.layout.num_prefix
    return {
        "inflow_max": float(columns.amax(-1).mean()),
        "inflow_source": float(columns.gather(-1, source[:, None]).mean()),
        "inflow_is_source": float((columns.argmax(-1) == source).double().mean()),
    }


def resting_column(view: BlockView, task: ToyTask, tokens: Tensor, head: int = 0) -> dict[str, float]:
    """Measure the column to which the resting tokens of a mixed toy, which has no null token, give the most attention.

    Returns:
        The mean attention to that column from tokens that must stay unchanged and from active tokens. The column is
        chosen for each sequence; one without resting or without active tokens does not count.
    """
    weights = view.weights()[:, head, view.layout.num_prefix :]
    rests = task.rests(tokens)[..., None]
    resting, active = (divide((weights * mask).sum(1), mask.sum(1)) for mask in (rests, ~rests))
    column = resting.nan_to_num(0.0).argmax(-1, keepdim=True)
    return {
        "attention_resting": float(resting.gather(-1, column).nanmean()),
        "attention_not_resting": float(active.gather(-1, column).nanmean()),
    }


MEASURES = {"nop": (null_token,), "broadcast": (source_token,), "mixed": (source_token, resting_column)}
"""Task -> what is measured of each head; the functions take a view, the task, its sequences and the head."""


@torch.no_grad()
def measures(model: ToyTransformer, task: ToyTask, tokens: Tensor) -> dict[str, float]:
    """Return the scalars under `toy/`: those of every block or, for mixed, of every head, with a suffix.

    Without a suffix, they are those of the block or head in which the source receives the most attention.
    `toy/label_<verdict>` is the fraction of sequences whose head has that label by the rule `adaptive`.
    """
    watcher = _Watcher(task, tokens)
    with measurement_mode(model), Tap(model, watcher) as tap:
        tap.run(tokens)
    records = watcher.take(np.arange(len(tokens)))
    config, depth = task.config, len(model.blocks)
    labels = label_all(records, ThresholdConfig())[ADAPTIVE_RULE]
    spectrum = spectral_spikes(model, list(range(depth)))
    measured = {}
    for (block, head), numbers in zip(product(range(depth), range(config.heads)), watcher.measured, strict=True):
        suffix = f"/block{block}" if depth > 1 else f"/head{head}" if config.heads > 1 else ""
        largest, spike = (float(values[block, head]) for values in spectrum)
        counts = {f"label_{v.name.lower()}": float((labels[:, block, head] == v).mean()) for v in VERDICTS}
        geometry = {"query_key_sigma1": largest, "spectral_spike": spike}
        measured[suffix] = _of_head(records, block, head, config) | numbers | counts | geometry
    best = max(measured.values(), key=lambda numbers: numbers.get("inflow_source", 0.0))
    return {
        f"toy/{name}{suffix}": value
        for suffix, numbers in {"": best, **measured}.items()
        for name, value in numbers.items()
    }


def _of_head(records: Records, block: int, head: int, config: ToyConfig) -> dict[str, float]:
    """Return the quantities of a head that every task reports: medians over sequences, and where its sink is."""
    columns = {"stable_rank": "stable_rank", "mass": "mass", "value_ratio": "ratio_out"}
    numbers = {name: float(np.nanmedian(records.heads[key][:, block, head])) for name, key in columns.items()}
    if config.registers:
        sink = records.heads["sink_idx"][:, block, head]
        numbers["sink_on_register"] = float(
            ((sink >= config.prefix - config.registers) & (sink < config.prefix)).mean()
        )
    return numbers


def verdicts(numbers: Mapping[str, float]) -> list[str]:
    """Return the verdicts that a run is summarized by: those of both heads of a mixed toy, otherwise one.

    Args:
        numbers: `measures`, or a row of `metrics.csv`.
    """
    heads = sorted(key.removeprefix("toy/label_nop") for key in numbers if key.startswith("toy/label_nop/head"))
    return [verdict(numbers, suffix) for suffix in heads or [""]]


def verdict(numbers: Mapping[str, float], suffix: str = "") -> str:
    """Return the most frequent label of one sink by rule `adaptive`; `none` if most sequences have no label.

    Args:
        numbers: `measures`, or a row of `metrics.csv`.
        suffix: Suffix of the scalars: that of a block or head, or empty for the sink's block.
    """
    shares = {v.name.lower(): numbers.get(f"toy/label_{v.name.lower()}{suffix}", 0.0) for v in VERDICTS}
    name = max(shares, key=lambda label: shares[label])
    return name if sum(shares.values()) >= 0.5 else "none"

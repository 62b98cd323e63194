"""Print the results of a command as a short table, and write predictions."""

import io
from pathlib import Path
from typing import Any

import lightning as L
import polars as pl
import torch
from rich.console import Console
from rich.table import Table

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.counting import DEFAULT_BLOCKS, counted_name
from sinkablate.diagnostics.rules import all_rules, scalar_prefix
from sinkablate.distributed.gather import gather
from sinkablate.errors import UserError
from sinkablate.files.writing import write_atomically
from sinkablate.run.directory import RESULTS, refuse_foreign_files
from sinkablate.run.reading import READ_ERRORS, read_json


def print_results(run_dir: Path, summary: dict[str, Any]) -> None:
    """Print accuracy, speed, sinks by label and token norms, then the run directory."""
    table = Table(title=summary["name"], title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")

    def row(label: str, key: str, form: str = ".2f") -> None:
        if key in summary:
            table.add_row(label, format(summary[key], form))

    row("validation accuracy", "val/acc1", ".2%")
    for key in sorted(key for key in summary if key.startswith("toy/") and key.count("/") == 1):
        if "label_" not in key:
            row(key, key, ".3f" if isinstance(summary[key], float) else "")
    if "toy/task" in summary:
        row("validation error (mean square)", "val/loss", ".4f")
    row("training images/s", "images_per_second", ".0f")
    row("wall time, s", "wall_seconds", ".0f")
    row("peak memory, GiB", "peak_memory_gib")
    _sink_rows(table, summary)
    if "toy/task" not in summary:
        row("largest mean mass on one token", "sink/mass_max")
    for kind in ("cls", "register", "patch"):
        if f"norm/{kind}_mean" in summary:
            table.add_row(
                f"token norm, {kind}: mean / p99",
                f"{summary[f'norm/{kind}_mean']:.1f} / {summary[f'norm/{kind}_p99']:.1f}",
            )
    row("mean gate openness", "gate/open")
    row("parameters", "parameters", ",d")
    if summary.get("match_difference"):
        row("extra parameters over the gated model", "match_difference", "+,d")
    if summary.get("images_dropped_per_epoch"):
        table.add_row(
            "training images left out per epoch",
            f"{summary['images_dropped_per_epoch']:,} of {summary['train_images']:,}",
        )
    for reason, count in summary.get("skipped", {}).items():
        table.add_row(f"skipped: {reason}", f"{count:,}")
    console = Console()
    console.print(table)
    console.print(f"run directory: {run_dir}", soft_wrap=True, highlight=False)


PER_BLOCK = "sink/events/block"
"""Prefix of the entries of a summary that count the events of a block."""
PREDICTIONS = ("key", "label", "predicted", "probability")
"""Columns of `predictions.parquet`."""
SCORES = {"acc1": "accuracy", "acc5": "top-5 accuracy", "loss": "loss"}


def print_scores(title: str, metrics: dict[str, float], path: Path) -> None:
    """Print the rounded results of `validate` and `test`, and the path of the file with all digits."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for key, value in metrics.items():
        name = key.rpartition("/")[2]
        label = SCORES.get(name, key) if key.startswith(("val/", "test/")) else key
        table.add_row(label, format(value, ".2%" if name.startswith("acc") else ".4f"))
    console = Console()
    console.print(table)
    console.print(f"metrics: {path}", soft_wrap=True, highlight=False)


def _sink_rows(table: Table, summary: dict[str, Any]) -> None:
    """Add the number of sinks per image and their labels, over all blocks but the first, or over the only block."""
    blocks = [int(key.removeprefix(PER_BLOCK)) for key in summary if key.startswith(PER_BLOCK)]
    where = "" if counted_name(blocks) == DEFAULT_BLOCKS else f" ({counted_name(blocks)})"
    unit = "sequence" if "toy/task" in summary else "image"
    for rule in all_rules(ThresholdConfig(), gated=True):
        prefix = scalar_prefix(rule.name)
        if "fit" in rule.shown and f"{prefix}/events" in summary:
            events = summary[f"{prefix}/events"]
            parts = ", ".join(f"{name} {summary[f'{prefix}/{name}']:.2f}" for name in ("nop", "broadcast", "other"))
            title = rule.name.replace("effective_", "effective ")
            table.add_row(f"sinks per {unit}, {title}{where}", f"{events:.2f} ({parts})" if events else "0")


def refuse_foreign_result(command: str, run_dir: Path) -> None:
    """Refuse a directory whose `validate.json`, `test.json` or `predictions.parquet` is neither a run's nor a result.

    Args:
        command: validate, test or predict.
        run_dir: The directory, which need not be that of a run.

    Raises:
        UserError: The command would replace a file that it did not write.
    """
    path = run_dir / RESULTS[command]
    try:
        if path.suffix == ".parquet":
            ours = pl.read_parquet_schema(path).keys() == set(PREDICTIONS)
        else:
            ours = all("/" in key for key in read_json(path) or {})
    except (*READ_ERRORS, UserError):
        ours = False
    if not ours:
        refuse_foreign_files(run_dir, (path.name,))


def write_predictions(path: Path, batches: list[dict[str, Any]], trainer: L.Trainer) -> Path:
    """Write one parquet row per image of all ranks, sorted by key: key, label, predicted, probability (a list)."""
    parts = gather([(batch["key"], batch["label"].cpu(), batch["probability"].cpu()) for batch in batches])
    if trainer.is_global_zero:
        rows = [item for part in parts for item in part]
        table = pl.DataFrame(
            {
                "key": [key for keys, _, _ in rows for key in keys],
                "label": torch.cat([label for _, label, _ in rows]).numpy(),
                "predicted": torch.cat([p.argmax(dim=1) for _, _, p in rows]).numpy(),
                "probability": torch.cat([p for _, _, p in rows]).numpy(),
            }
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()  # polars reports a full disk as a damaged file
        table.sort("key").write_parquet(content)
        write_atomically(path, lambda partial: partial.write_bytes(content.getvalue()))
    return path

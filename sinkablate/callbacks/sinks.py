"""Sink diagnostics while a model trains."""

import io
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import polars as pl
import torch
from PIL import Image
from torch import Tensor, nn

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.findings import label_counts
from sinkablate.diagnostics.probe import check, probe
from sinkablate.diagnostics.records import Records
from sinkablate.diagnostics.rules import rules
from sinkablate.diagnostics.summary import scalars
from sinkablate.diagnostics.tables import block_table, head_table
from sinkablate.distributed.sharding import unshard
from sinkablate.errors import UserError
from sinkablate.figures.heatmap import heatmap
from sinkablate.files.writing import naming, write_atomically
from sinkablate.loggers.wandb import FaultTolerantWandbLogger
from sinkablate.vit.anatomy import backbone_of


class SinkDiagnostics(L.Callback):
    """Measures the sinks every few steps, on the same images in every run, and leaves the training as it was.

    Scalars go to the loggers, arrays to `diagnostics/step_*.parquet` (one row per block and head) and
    `diagnostics/blocks/step_*.parquet`, a heat-map per evaluation to `figures/` and W&B. All ranks take part.

    Args:
        every_n_steps: Optimizer steps between two measurements; 0 switches them off. The first comes before the
            first step, the last after the last.
        images: Number of probe images, of the validation set, the same for every run.
        batch_size: Probe images per forward pass.
        heatmap: Draw the block x head picture of the latest measurement at each evaluation.
        thresholds: The numbers behind quantities and rules.
    """

    def __init__(
        self,
        every_n_steps: int = 50,
        images: int = 64,
        batch_size: int = 64,
        heatmap: bool = True,
        thresholds: ThresholdConfig = ThresholdConfig(),
    ) -> None:
        for name, value, least in (
            ("every_n_steps", every_n_steps, 0),
            ("images", images, 1),
            ("batch_size", batch_size, 1),
        ):
            if value < least:
                raise UserError(f"diagnostics.{name} must be at least {least}, got {value}")
        self.every_n_steps = every_n_steps
        self.images = images
        self.batch_size = batch_size
        self.heatmap = heatmap
        self.thresholds = thresholds
        self.latest: dict[str, float] = {}
        self._records: Records | None = None
        self._probe: tuple[Tensor, np.ndarray[Any, np.dtype[np.int64]]] | None = None
        self._measured_at: int | None = None
        self._undrawn: tuple[int, pl.DataFrame] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Load this rank's part of the probe images and try the tap on one, before anything is written."""
        if stage != "fit" or not self.every_n_steps:
            return
        images = trainer.datamodule.probe_images(self.images).images  # type: ignore[attr-defined]
        self.check_model(pl_module, trainer.precision, images[:1])
        mine = np.arange(len(images))[trainer.global_rank :: trainer.world_size]
        self._probe = (images[torch.from_numpy(mine)], mine)

    def check_model(self, pl_module: nn.Module, precision: str | None, image: Tensor) -> None:
        """See that a model can be measured.

        Args:
            pl_module: The task.
            precision: As the trainer names it.
            image: One image, (1, C, H, W).

        Raises:
            UserError: It cannot.
        """
        backbone = backbone_of(pl_module)
        if backbone is None:
            raise UserError(
                f"diagnostics: {type(pl_module).__name__} offers no backbone to measure; "
                "set diagnostics.every_n_steps=0"
            )
        if precision in ("16-true", "bf16-true"):
            raise UserError(
                f"trainer.precision={precision}: diagnostics need fp32 weights; "
                "use bf16-mixed, or set diagnostics.every_n_steps=0"
            )
        try:
            check(backbone, image)
        except UserError as error:
            raise UserError(f"{error}; diagnostics.every_n_steps=0 trains without measuring") from None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure the start of a fresh run; a resumed one has measured the step it resumes from.

        One that resumes at its end measures that again, because the summary needs the numbers.
        """
        step = trainer.global_step
        measured = step and self.every_n_steps and step % self.every_n_steps == 0 and not trainer.fit_loop.done
        self._measured_at = step if measured else None
        if self.every_n_steps and trainer.global_step == 0:
            self._measure(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure when the step is due; once per optimizer step, however many micro-batches it has."""
        step = trainer.global_step
        if self.every_n_steps and step % self.every_n_steps == 0 and step != self._measured_at and step > 0:
            self._measure(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the latest measurement beside the evaluation."""
        self._draw(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure the end, which the summary reports."""
        if self.every_n_steps and trainer.global_step != self._measured_at:
            self._measure(trainer, pl_module)
        self._draw(trainer)

    def latest_counts(self) -> dict[str, Any]:
        """Events of the latest measurement by rule, label and token type, see `label_counts`; empty without one."""
        if self._records is None:
            return {}
        return label_counts(self._records, self.thresholds, list(range(self._records.norms.shape[1])))

    def _measure(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        backbone = backbone_of(pl_module)
        step = self._measured_at = trainer.global_step
        assert self._probe is not None
        assert backbone is not None
        images, order = self._probe
        part, backbone = None, unshard(backbone)
        if len(images):
            part, _ = probe(backbone, images, order, self.thresholds, self.batch_size)
        records = _gather(part, trainer)
        if trainer.is_global_zero:
            self.latest = scalars(records, self.thresholds)
            self._records = records
            for logger in trainer.loggers:
                logger.log_metrics(self.latest, step=step)
            self._store(records, trainer, step)

    def _store(self, records: Records, trainer: L.Trainer, step: int) -> None:
        """Arrays of one measurement; a step measured again after a resume replaces its files."""
        table = head_table(records, self.thresholds)
        tables = Path(trainer.default_root_dir) / "diagnostics"
        name = f"step_{step:08d}.parquet"
        _write(table, step, tables / name)
        _write(block_table(records, self.thresholds), step, tables / "blocks" / name)
        self._undrawn = (step, table)

    def _draw(self, trainer: L.Trainer) -> None:
        """The latest measurement as a picture, unless there is one: a figure takes as long as many steps."""
        if not self.heatmap or self._undrawn is None:
            return
        (step, table), self._undrawn = self._undrawn, None
        shown = [rule for rule in rules(self.thresholds) if "figures" in rule.shown]
        title = f"step {step}, {table['images'][0]} images; {shown[0]}"
        png = heatmap(table, title, [rule.name for rule in shown])
        target = Path(trainer.default_root_dir) / "figures" / f"heads_step_{step:08d}.png"
        with naming(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, lambda partial: partial.write_bytes(png))
        for logger in trainer.loggers:
            if isinstance(logger, FaultTolerantWandbLogger):
                logger.log_image("sink/heads", [Image.open(io.BytesIO(png))], step=step)


def _gather(part: Records | None, trainer: L.Trainer) -> Records:
    """Records of all ranks, on every rank."""
    parts: list[Records | None] = [part]
    if trainer.world_size > 1:
        parts = [None] * trainer.world_size
        torch.distributed.all_gather_object(parts, part)
    return Records.merge([p for p in parts if p is not None])


def _write(table: pl.DataFrame, step: int, path: Path) -> None:
    """Write a parquet file whole or not at all, the step in its first column."""
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()  # polars itself calls a full disk a damaged file
    table.select(pl.lit(step).alias("step"), pl.all()).write_parquet(content)
    write_atomically(path, lambda partial: partial.write_bytes(content.getvalue()))

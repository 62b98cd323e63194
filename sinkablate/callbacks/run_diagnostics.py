"""The sink diagnostics of `sinkablate fit`: on the run's own images, with tables and figures in the run directory."""

import io
from pathlib import Path
from typing import Any

import lightning as L
import polars as pl
from PIL import Image
from torch import Tensor, nn

from sinkablate.callbacks.sinks import SinkDiagnostics
from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.findings import label_counts
from sinkablate.diagnostics.histograms import histogram_table
from sinkablate.diagnostics.rules import rules
from sinkablate.diagnostics.tables import block_table, head_table
from sinkablate.errors import UserError, require_at_least
from sinkablate.figures.heatmap import heatmap
from sinkablate.files.writing import naming, write_atomically
from sinkablate.loggers.wandb import wandb_loggers
from sinkablate.process.background import Background
from sinkablate.vit.anatomy import backbone_of


class RunDiagnostics(SinkDiagnostics):
    """Measure the sinks on probe images of the validation set, the same images in every run.

    Scalars go to the loggers, tables to `diagnostics/step_*.parquet` (one row per block and head),
    `diagnostics/blocks/step_*.parquet` (one row per block) and `diagnostics/norm_histograms/step_*.parquet`, and a heat
    map per evaluation to `figures/` and W&B. A thread makes and writes the tables while training continues. A
    checkpoint waits for the tables of its step, so that a resumed run has them.

    Args:
        every_n_steps: Optimizer steps between two measurements; 0 turns them off. The first measurement comes before
            the first step, the last after the last step.
        images: Number of probe images, taken from the validation set.
        batch_size: Probe images per forward pass.
        memory_mib: Memory of the blocks that are measured together, in MiB; null means 2 on a CPU and 2048 on a GPU. It
            changes speed and memory only; 0 measures every block by itself.
        heatmap: Draw the latest measurement over blocks and heads at each evaluation.
        per_doubling: Additional measurements per doubling of the step while the step is below 4 * every_n_steps, where
            sinks form; 0 leaves them out.
        thresholds: Thresholds of the quantities and rules.
    """

    def __init__(
        self,
        every_n_steps: int = 50,
        images: int = 64,
        batch_size: int = 64,
        memory_mib: int | None = None,
        heatmap: bool = True,
        per_doubling: int = 2,
        thresholds: ThresholdConfig = ThresholdConfig(),
    ) -> None:
        require_at_least(images, 1, "diagnostics.images")
        try:
            super().__init__(
                (),
                every_n_steps,
                per_doubling=per_doubling,
                limit=None,
                batch_size=batch_size,
                memory_mib=memory_mib,
                thresholds=thresholds,
            )
        except UserError as error:
            raise UserError(f"diagnostics.{error}") from None
        self.images = images
        self.heatmap = heatmap
        self._not_drawn: int | None = None
        self._tables = Background("diagnostics")

    def load_images(self, trainer: L.Trainer | None) -> Tensor:
        """Return the probe images of the run's data module."""
        assert trainer is not None
        images: Tensor = trainer.datamodule.probe_images(self.images).images  # type: ignore[attr-defined]
        return images

    def check_model(self, pl_module: nn.Module, precision: str | None, image: Tensor) -> None:
        """Check that a model can be measured; the message also says how to train without measuring.

        Raises:
            UserError: The model cannot be measured.
        """
        if backbone_of(pl_module) is None:
            raise UserError(
                f"diagnostics: {type(pl_module).__name__} has no backbone to measure; set diagnostics.every_n_steps=0"
            )
        try:
            super().check_model(pl_module, precision, image)
        except UserError as error:
            raise UserError(f"{error}; diagnostics.every_n_steps=0 trains without measuring") from None

    def backbone_of(self, model: nn.Module) -> nn.Module:
        """Return the task's own, uncompiled backbone."""
        backbone = backbone_of(model)
        assert backbone is not None
        return backbone

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure before the first step, and wait for the tables: files that cannot be written are reported at once."""
        super().on_train_start(trainer, pl_module)
        self._tables.wait()

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Wait for the tables, because a run that resumes from the checkpoint does not measure its step again."""
        self._tables.wait()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the latest measurement next to the evaluation."""
        self._draw(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure and draw the final weights, which the summary reports."""
        super().on_train_end(trainer, pl_module)
        self._tables.wait()
        self._draw(trainer)
        if self.records is not None and trainer.is_global_zero:
            rows = [list(row) for row in self.heads.rows()]
            for logger in wandb_loggers(trainer):
                logger.log_table("tables/heads", columns=self.heads.columns, data=rows, step=trainer.global_step)

    def latest_counts(self) -> dict[str, Any]:
        """Return the latest counts by rule, label and token type, see `label_counts`; empty before a measurement."""
        if self.records is None:
            return {}
        return label_counts(self.records, self.thresholds, list(range(self.records.norms.shape[1])))

    def on_measured(self, trainer: L.Trainer, step: int) -> None:
        """Write the tables of a measurement; a step that a resumed run measures again replaces its files."""
        records, thresholds = self._measured(), self.thresholds
        folder, name = Path(trainer.default_root_dir) / "diagnostics", f"step_{step:08d}.parquet"

        def write_tables() -> None:
            _write(head_table(records, thresholds), step, folder / name)
            _write(block_table(records, thresholds), step, folder / "blocks" / name)
            _write(histogram_table(records), step, folder / "norm_histograms" / name)

        self._tables.wait()
        self._tables.submit(write_tables)
        self._not_drawn = step

    def _draw(self, trainer: L.Trainer) -> None:
        """Draw the latest measurement unless it is already drawn, because a figure takes as long as many steps."""
        if not self.heatmap or self._not_drawn is None:
            return
        step, self._not_drawn, table = self._not_drawn, None, self.heads
        shown = [rule for rule in rules(self.thresholds) if "figures" in rule.shown]
        png = heatmap(table, f"step {step}, {table['images'][0]} images", [rule.name for rule in shown])
        target = Path(trainer.default_root_dir) / "figures" / f"heads_step_{step:08d}.png"
        with naming(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, lambda partial: partial.write_bytes(png))
        for logger in wandb_loggers(trainer):
            logger.log_image("sink/heads", [Image.open(io.BytesIO(png))], step=step)


def _write(table: pl.DataFrame, step: int, path: Path) -> None:
    """Write a parquet file atomically, with the step in its first column."""
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()  # polars reports a full disk as a damaged file
    table.select(pl.lit(step).alias("step"), pl.all()).write_parquet(content)
    write_atomically(path, lambda partial: partial.write_bytes(content.getvalue()))

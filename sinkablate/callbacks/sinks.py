"""Measure attention sinks while a model trains, in any Trainer and in plain PyTorch loops."""

from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from typing import Annotated, Any
from weakref import ref

import lightning as L
import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sinkablate.config import ThresholdConfig
from sinkablate.config.types import checked
from sinkablate.diagnostics.batches import draw_images, require_images
from sinkablate.diagnostics.probe import check, probe
from sinkablate.diagnostics.records import Records
from sinkablate.diagnostics.schedule import early_steps
from sinkablate.diagnostics.summary import scalars
from sinkablate.diagnostics.tables import block_table, head_table
from sinkablate.diagnostics.tap import NonfiniteError
from sinkablate.distributed.gather import from_first_rank, gather, rank_and_world
from sinkablate.distributed.sharding import unshard
from sinkablate.errors import UserError, require_at_least
from sinkablate.vit.find import find_backbone

Batches = Annotated[Tensor | Iterable[Any], "a batch (n, C, H, W) or an iterable of batches such as a DataLoader"]

LEAST = {"every_n_steps": 0, "per_doubling": 0, "memory_mib": 0, "batch_size": 1, "limit": 1}


class SinkDiagnostics(L.Callback):
    """Measure the attention sinks every few optimizer steps, always on the same images.

    The training does not change: modes, random states and weights are left as they were. The scalars of
    `sinkablate fit` (`sink/events`, `sink/mass_max`, `norm/cls_mean`, ...) go to every logger of the Trainer. With
    several ranks each one measures a part of the images, so all ranks must take part.

    In a loop without a Trainer, call :meth:`step` after each optimizer step.

    Args:
        images: The images to measure on: a batch (n, C, H, W), or an iterable of batches such as a DataLoader. A batch
            is a tensor, a tuple that begins with one, or a mapping with `pixel_values` or `image`. The images are drawn
            once, on rank 0 with a fixed seed, and kept in memory: they are the same at every step, on every rank and
            in every run, even if the loader shuffles and augments.
        every_n_steps: Optimizer steps between two measurements; 0 turns them off. A Trainer also measures before the
            first step and after the last.
        backbone: Name of the submodule to measure, such as `model.encoder`; by default the attribute `backbone` or
            `model` of the LightningModule, or the module itself.
        per_doubling: Additional measurements per doubling of the step while the step is below 4 * `every_n_steps`.
        limit: Number of images to take from an iterable; None takes all of them.
        batch_size: Images per forward pass.
        memory_mib: Memory of the blocks that are measured together, in MiB; None chooses by device, as in `measure`.
        thresholds: Thresholds of the quantities and rules.

    Raises:
        UserError: An argument cannot be used, or, once measuring starts, the model cannot be measured.

    Example::

        sinks = sa.SinkDiagnostics(images=next(iter(val_loader))[0], every_n_steps=50)
        L.Trainer(callbacks=[sinks]).fit(my_module, train_loader)

        for step, batch in enumerate(train_loader, 1):  # without Lightning
            train_step(model, batch)
            if scalars := sinks.step(model, step):
                print(step, scalars["sink/mass_max"])
    """

    @checked
    def __init__(
        self,
        images: Batches,
        every_n_steps: int = 50,
        *,
        backbone: str | None = None,
        per_doubling: int = 0,
        limit: int | None = 64,
        batch_size: int = 64,
        memory_mib: int | None = None,
        thresholds: ThresholdConfig = ThresholdConfig(),
    ) -> None:
        self.every_n_steps = every_n_steps
        self.per_doubling = per_doubling
        self.backbone = backbone
        self.limit = limit
        self.batch_size = batch_size
        self.memory_mib = memory_mib
        for key, least in LEAST.items():
            require_at_least(getattr(self, key), least, key)
        self.thresholds = thresholds
        self.latest: dict[str, float] = {}
        """The scalars of the latest measurement."""
        self.records: Records | None = None
        """The latest measurement: every quantity per image, block and head."""
        self._source = images
        self._measured_at: int | None = None
        self._measured_model: ref[nn.Module] | None = None

    @property
    def heads(self) -> pl.DataFrame:
        """The latest measurement as a table with one row per block and head."""
        return head_table(self._measured(), self.thresholds)

    @property
    def blocks(self) -> pl.DataFrame:
        """The latest measurement as a table with one row per block."""
        return block_table(self._measured(), self.thresholds)

    @checked
    def step(self, model: nn.Module, step: int) -> dict[str, float] | None:
        """Measure a model if a measurement is due at this step, in a loop without a Trainer.

        Args:
            model: The model that is trained; `backbone` names a submodule of it.
            step: Number of completed optimizer steps; at 0 the model is measured before the first step.

        Returns:
            The scalars, or None when no measurement is due at this step or this model was already measured at it.
        """
        measured = step == self._measured_at and self._has_measured(model)
        return None if measured or not self.is_due(step) else self.measure(model, step)

    @checked
    def measure(self, model: nn.Module, step: int) -> dict[str, float]:
        """Measure a model now and return the scalars, by name; all ranks must take part.

        Args:
            model: The model that is trained.
            step: Number of completed optimizer steps.

        Raises:
            NonfiniteError: The activations of a block are NaN or infinite.
            UserError: The model or the images cannot be measured.
        """
        (images, order), part, problem = self._part, None, ""
        backbone, rebuild = unshard(self.backbone_of(model)), not self._has_measured(model)
        try:
            if len(images):
                part, _ = probe(backbone, images, order, self.thresholds, self.batch_size, self.memory_mib, rebuild)
        except NonfiniteError as error:  # on one rank perhaps: all ranks must reach the gather
            problem = str(error)
        parts = gather((part, problem))
        if problems := [text for _, text in parts if text]:
            raise NonfiniteError(problems[0])
        self._measured_at, self._measured_model = step, ref(model)
        self.records = Records.merge([records for records, _ in parts if records is not None])
        self.latest = scalars(self.records, self.thresholds)
        return self.latest

    def _has_measured(self, model: nn.Module) -> bool:
        return self._measured_model is not None and self._measured_model() is model

    def is_due(self, step: int) -> bool:
        """Return whether the schedule has a measurement at this optimizer step."""
        return self.every_n_steps > 0 and (step % self.every_n_steps == 0 or step in self._early)

    def backbone_of(self, model: nn.Module) -> nn.Module:
        """Return the module to measure; raise a `UserError` if there is none."""
        return find_backbone(model, self.backbone)

    def load_images(self, trainer: L.Trainer | None) -> Tensor:
        """Return the images to measure on, (n, C, H, W)."""
        source = self._source
        return from_first_rank(lambda: source if isinstance(source, Tensor) else draw_images(source, self.limit))

    def check_model(self, pl_module: nn.Module, precision: str | None, image: Tensor) -> None:
        """Check that a model can be measured before training starts.

        Args:
            pl_module: The LightningModule.
            precision: The Trainer's name for its precision.
            image: One image, (1, C, H, W).

        Raises:
            UserError: The model cannot be measured.
        """
        if precision in ("16-true", "bf16-true"):
            raise UserError(
                f"trainer.precision={precision}: diagnostics need fp32 weights; use bf16-mixed, or set every_n_steps=0"
            )
        check(self.backbone_of(pl_module), image)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Load the images and send one through the tap, before anything is written."""
        if stage == "fit" and self.every_n_steps:
            self._images = self.load_images(trainer)
            vars(self).pop("_part", None)  # of an earlier run with this callback
            self.check_model(pl_module, trainer.precision, self._images[:1])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure before the first step; a resumed run has already measured the step that it resumes from.

        A run that resumes at its last step measures again, because its summary needs the numbers.
        """
        step = trainer.global_step
        self._measured_at = step if step and self.is_due(step) and not trainer.fit_loop.done else None
        if step == 0:
            self._measure_and_log(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure when the step is due, once per optimizer step even with several micro-batches."""
        if trainer.global_step and self.is_due(trainer.global_step):
            with suppress(NonfiniteError):  # the loss of the next step names the step and the module
                self._measure_and_log(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure the final weights."""
        self._measure_and_log(trainer, pl_module)

    def on_measured(self, trainer: L.Trainer, step: int) -> None:
        """Called on rank 0 after each measurement in a Trainer; a subclass can store `records` here."""

    def _measure_and_log(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        step = trainer.global_step
        if not self.every_n_steps or step == self._measured_at:
            return
        self.measure(pl_module, step)
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics(self.latest, step=step)
            self.on_measured(trainer, step)

    @cached_property
    def _early(self) -> frozenset[int]:
        return early_steps(self.every_n_steps, self.per_doubling)

    @cached_property
    def _images(self) -> Tensor:
        return self.load_images(None)

    @cached_property
    def _part(self) -> tuple[Tensor, NDArray[np.int64]]:
        """This rank's part of the images, and their positions among all of them; pinned if there is a GPU."""
        require_images(len(self._images))
        rank, world = rank_and_world()
        order = np.arange(len(self._images))[rank::world]
        part = self._images[torch.from_numpy(order)]
        return part.pin_memory() if torch.cuda.is_available() and part.device.type == "cpu" else part, order

    def _measured(self) -> Records:
        if self.records is None:
            raise UserError("nothing has been measured yet; call step or measure, or train with this callback")
        return self.records

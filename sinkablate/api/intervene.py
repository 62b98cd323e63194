"""Edit heads of a model in memory and measure what the edits change."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor, nn

from sinkablate.api.images import Images, Transform, batches_of
from sinkablate.config import SelectionConfig, ThresholdConfig
from sinkablate.config.types import checked
from sinkablate.diagnostics.attention_maps import Heads, heads_of
from sinkablate.diagnostics.measurement import Measurement
from sinkablate.diagnostics.probe import record
from sinkablate.diagnostics.random_state import random_state_kept
from sinkablate.diagnostics.rules import rule_named
from sinkablate.errors import UserError
from sinkablate.intervene.edits import parse_edits
from sinkablate.intervene.effects import classifier_judge
from sinkablate.intervene.experiment import Experiment
from sinkablate.vit.anatomy import block_parts, blocks_of, class_count
from sinkablate.vit.find import unwrap


@dataclass(frozen=True)
class Interventions:
    """The measured effects of edits, as `intervene` returns them."""

    rows: pl.DataFrame
    """One row per image, head and edit."""
    experiment: Experiment = field(repr=False)
    """The model, its edited heads, and the edits."""
    measurement: Measurement = field(repr=False)
    """The measurement of the unedited model."""

    @cached_property
    def _tables(self) -> dict[str, pl.DataFrame]:
        return self.experiment.tables(self.rows)

    @property
    def heads(self) -> pl.DataFrame:
        """One row per block, head and edit: medians over the images, with intervals."""
        return self._tables["heads"]

    @property
    def classes(self) -> pl.DataFrame:
        """One row per label and edit: medians over the heads with enough events, with intervals over blocks."""
        return self._tables["classes"]

    @property
    def validation(self) -> pl.DataFrame:
        """One row per edit: how well the labels predict its effect, from heads with enough events."""
        return self._tables["validation"]


@checked
def intervene(
    model: nn.Module,
    images: Images,
    heads: Heads | None = None,
    edits: str | Sequence[str] | None = None,
    *,
    rule: str = "causal",
    targets: Sequence[int] | Tensor | NDArray[Any] | None = None,
    names: Sequence[str] | None = None,
    thresholds: ThresholdConfig | None = None,
    selection: SelectionConfig = SelectionConfig(),
    seed: int = 0,
    transform: Transform | None = None,
    batch_size: int = 16,
) -> Interventions:
    """Edit one head at a time and measure how the rest of the network responds; nothing is written or printed.

    The rows are those of `sinkablate intervene`. Before anything is measured, all edits of the first image are
    checked in float64 against the model's own forward pass.

    Args:
        model: A vision transformer, see `measure`.
        images: The images, see `measure`; all of them are kept in memory.
        heads: Pairs (block, head) of the heads to edit, both counted from 0; they are edited on every image. None
            chooses the heads with enough events, see `selection`, and edits each on the images where it has an event.
        edits: Names of edits, such as `zero_value` (zero ablation), `mean_value` (mean ablation), `donor_value`
            (resample ablation) and `redirect` (attention knockout); all by default.
        rule: The rule of events and labels.
        targets: Class of each image, (n,) integers, for a classifier's accuracy before and after an edit.
        names: Name of each image; random draws depend on the seed, the name and the position of the image.
        thresholds: Thresholds of the quantities and rules.
        selection: The number of heads that are chosen, and of events that a head needs.
        seed: Seed of donors, directions and random tokens.
        transform: Turns a PIL image into a tensor (C, H, W), see `measure`.
        batch_size: Number of images per forward pass of the first measurement; no number depends on it.

    Returns:
        The polars tables `.rows` (one row per image, head and edit), `.heads`, `.classes` and `.validation`. `effect`
        is the RMS change of the final tokens, those of patches if there are any, relative to their RMS; the page
        "Quantities" of the documentation defines every column.

    Raises:
        UserError: An argument cannot be used, the model cannot be edited, or a check in float64 fails.

    Example::

        effects = sa.intervene(model, images, heads=[(5, 3)], edits=["mean_value", "donor_value"])
        print(effects.heads.select("block", "head", "edit", "effect"))
    """
    model = unwrap(model)
    parse_edits("all" if edits is None else edits)  # before anything is measured
    thresholds = thresholds or ThresholdConfig()
    depth = len(blocks_of(model))
    given = None if heads is None else sorted(heads_of(model, heads))
    gated = any(block_parts(model, block).gate is not None for block in range(depth))
    wanted = rule_named(rule, thresholds, gated=gated)
    device = next(model.parameters()).device
    with random_state_kept():
        batches = [batch.to(device) for batch in batches_of(images, model, transform=transform, batch_size=batch_size)]
    classes = None if targets is None else _classes(targets, model, sum(map(len, batches)))
    records, error = record(model, batches, thresholds)
    count = len(records.order)
    experiment = Experiment.prepare(
        model,
        records,
        wanted,
        heads=given,
        edits="all" if edits is None else edits,
        selection=selection,
        judge=classifier_judge(model, classes),
        names=None if names is None else _of_length(names, count, "names"),
        seed=seed,
    )
    rows = experiment.run(lambda: (image for batch in batches for image in batch.split(1)))
    if given and not len(rows):
        raise UserError(
            f"edits={','.join(edit.name for edit in experiment.edits)}: none of them can be made on these heads and "
            "images; name other edits"
        )
    return Interventions(rows, experiment, Measurement.of(model, records, thresholds, None, error))


def _classes(targets: Sequence[int] | Tensor | NDArray[Any], model: nn.Module, count: int) -> list[int]:
    """Return the class of each image.

    Raises:
        UserError: The model has no classifier, or the targets are not one of its classes for each image.
    """
    classes = class_count(model)
    if not classes:
        raise UserError(f"targets: {type(model).__name__} has no classifier; leave targets out")
    array = np.asarray(targets.cpu() if isinstance(targets, Tensor) else targets)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise UserError(f"targets: expected integers (n,), got {array.dtype} of shape {array.shape}")
    wrong = array[(array < 0) | (array >= classes)]
    if len(wrong):
        raise UserError(f"targets: {wrong[0]} is not one of the model's classes, 0 to {classes - 1}")
    return _of_length(array.tolist(), count, "targets")


def _of_length(values: Sequence[Any], count: int, key: str) -> list[Any]:
    """Return the values as a list with one entry per image."""
    if len(values) != count:
        raise UserError(f"{key}: {len(values)} given for {count} images")
    return list(values)

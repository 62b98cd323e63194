"""Edit heads of a model in memory and measure what the edits change."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import polars as pl
import torch
from torch import Tensor, nn

from sinkablate.api.images import Images, Transform, batches_of
from sinkablate.config import SelectionConfig, ThresholdConfig
from sinkablate.diagnostics.attention_maps import Head, require_heads
from sinkablate.diagnostics.measurement import Measurement
from sinkablate.diagnostics.probe import record
from sinkablate.diagnostics.rules import rule_named
from sinkablate.errors import UserError
from sinkablate.intervene.edits import parse_edits
from sinkablate.intervene.effects import classifier_judge
from sinkablate.intervene.experiment import Experiment
from sinkablate.intervene.selection import parse_heads
from sinkablate.vit.anatomy import block_parts, blocks_of
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


def intervene(
    model: nn.Module,
    images: Images,
    heads: Sequence[Head] | None = None,
    edits: Sequence[str] | None = None,
    *,
    rule: str = "causal",
    targets: Sequence[int] | Tensor | None = None,
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
        model: As for `measure`.
        images: As for `measure`; all of them are kept in memory.
        heads: (block, head) of the heads to edit, on every image. None takes the heads with enough events, on the
            images that have one.
        edits: Names of edits, such as `zero_value` (zero ablation), `mean_value` (mean ablation), `donor_value`
            (resample ablation) and `redirect` (attention knockout); all by default.
        rule: The rule of events and labels.
        targets: Class of each image, for the accuracy before and after an edit of a classifier.
        names: Name of each image; random draws depend on the seed, the name and the position of the image.
        thresholds: Thresholds of the quantities and rules.
        selection: The number of heads that are chosen, and of events that a head needs.
        seed: Seed of donors, directions and random tokens.
        transform: As for `measure`.
        batch_size: Images per forward pass of the first measurement; no number depends on it.

    Raises:
        UserError: The model cannot be edited, a name is unknown, or a check in float64 fails.

    Example::

        effects = sa.intervene(model, images, heads=[(5, 3)], edits=["mean_value", "donor_value"])
        print(effects.heads.select("block", "head", "edit", "effect"))
    """
    model = unwrap(model)
    parse_edits("all" if edits is None else edits)  # before anything is measured
    thresholds = thresholds or ThresholdConfig()
    depth = len(blocks_of(model))
    gated = any(block_parts(model, block).gate is not None for block in range(depth))
    wanted = rule_named(rule, thresholds, gated=gated)
    shape = (depth, block_parts(model, 0).num_heads)
    require_heads(model, heads or ())
    given = None if heads is None else parse_heads(",".join(f"{block}:{head}" for block, head in heads), shape)
    device = next(model.parameters()).device
    batches = [batch.to(device) for batch in batches_of(images, model, transform=transform, batch_size=batch_size)]
    records, error = record(model, batches, thresholds)
    count = len(records.order)
    experiment = Experiment.prepare(
        model,
        records,
        wanted,
        heads=given,
        edits="all" if edits is None else edits,
        selection=selection,
        judge=classifier_judge(
            model, None if targets is None else _of_length(torch.as_tensor(targets).tolist(), count, "targets")
        ),
        names=None if names is None else _of_length(names, count, "names"),
        seed=seed,
    )
    rows = experiment.run(lambda: (image for batch in batches for image in batch.split(1)))
    return Interventions(rows, experiment, Measurement.of(model, records, thresholds, None, error))


def _of_length(values: Sequence[Any], count: int, key: str) -> list[Any]:
    """Return the values as a list with one entry per image."""
    if len(values) != count:
        raise UserError(f"{key}: {len(values)} given for {count} images")
    return list(values)

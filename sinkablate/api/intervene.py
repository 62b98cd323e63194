"""Edit heads of a model in memory and measure what the edits change."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import polars as pl
import torch
from torch import Tensor, nn

from sinkablate.api.images import Images, Transform, batches_of
from sinkablate.config import SelectionConfig, ThresholdConfig
from sinkablate.diagnostics.attention_maps import Head
from sinkablate.diagnostics.measurement import Measurement
from sinkablate.diagnostics.probe import measurement_mode, record
from sinkablate.diagnostics.rules import rule_named
from sinkablate.errors import UserError
from sinkablate.intervene.command import refuse_lonely
from sinkablate.intervene.editor import Editor
from sinkablate.intervene.edits import parse_edits, selected
from sinkablate.intervene.exactness import check_exactness
from sinkablate.intervene.judging import classifier_judge
from sinkablate.intervene.selection import Plan, choose_heads, head_class, parse_heads
from sinkablate.intervene.tables import head_table, row_table, validation_table
from sinkablate.intervene.values import collect
from sinkablate.vit.anatomy import block_parts, blocks_of
from sinkablate.vit.find import unwrap


@dataclass(frozen=True)
class Interventions:
    """The measured effects of edits, as `intervene` returns them."""

    rows: pl.DataFrame
    """One row per image, head and edit."""
    plan: Plan
    """The edited heads, and the labels of all heads on all images."""
    measurement: Measurement
    """The measurement of the unedited model."""
    selection: SelectionConfig
    """The number of events that a head needs to count."""

    @cached_property
    def heads(self) -> pl.DataFrame:
        """One row per block, head and edit: medians over the images, with intervals."""
        classes = {(block, head): head_class(self.plan.labels[:, block, head]) for block, head in self.plan.heads}
        return head_table(self.rows, classes, self.selection, everywhere=self.plan.everywhere)

    @property
    def validation(self) -> pl.DataFrame:
        """One row per edit: how well the labels predict its effect, from heads that count."""
        return validation_table(self.heads, len(self.measurement.block_numbers))


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
    chosen = parse_edits("all" if edits is None else edits)
    thresholds = thresholds or ThresholdConfig()
    depth = len(blocks_of(model))
    gated = any(block_parts(model, block).gate is not None for block in range(depth))
    wanted = rule_named(rule, thresholds, gated=gated)
    shape = (depth, block_parts(model, 0).num_heads)
    given = None if heads is None else parse_heads(",".join(f"{block}:{head}" for block, head in heads), shape)
    device = next(model.parameters()).device
    batches = [batch.to(device) for batch in batches_of(images, model, transform=transform, batch_size=batch_size)]
    records, error = record(model, batches, thresholds)
    refuse_lonely(len(records.order), chosen)
    plan = Plan.of_records(records, wanted, given or (), everywhere=given is not None, seed=seed)
    if names is not None:
        plan = replace(plan, names=_of_length(names, len(records.order), "names"))
    if given is None:
        plan = replace(plan, heads=choose_heads(plan.labels, selection))
    classes = None if targets is None else _of_length(torch.as_tensor(targets).tolist(), len(records.order), "targets")
    with measurement_mode(model):
        rows = _edited(model, plan, batches, chosen, classes)
    return Interventions(row_table(rows), plan, Measurement.of(model, records, thresholds, None, error), selection)


def _edited(
    model: nn.Module, plan: Plan, batches: list[Tensor], edits: list[str], targets: list[int] | None
) -> list[dict[str, Any]]:
    """Return the rows of all images."""

    def one_by_one() -> Iterator[Tensor]:
        for batch in batches:
            yield from batch.split(1)

    editor = Editor(model, plan, collect(model, plan, one_by_one()), selected(edits), classifier_judge(model, targets))
    edited = [number for number in range(len(plan.names)) if editor.pathways or plan.edited(number)]
    rows: list[dict[str, Any]] = []
    for number, image in enumerate(one_by_one()):
        if edited and number == edited[0]:
            check_exactness(editor, number, image)
        if number in edited:
            rows += [{"place": number, **row} for row in editor.rows(number, image)]
    return rows


def _of_length(values: Sequence[Any], count: int, key: str) -> list[Any]:
    """Return the values as a list with one entry per image."""
    if len(values) != count:
        raise UserError(f"{key}: there are {len(values)} for {count} images")
    return list(values)

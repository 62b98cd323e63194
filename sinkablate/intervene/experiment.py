"""An experiment: a model, the heads to edit on each image, and the edits. Runs in memory; writes and prints nothing."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
from numpy.typing import NDArray
from torch import Tensor, nn

from sinkablate.config import SelectionConfig
from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.diagnostics.records import Records
from sinkablate.diagnostics.rules import Rule
from sinkablate.errors import UserError
from sinkablate.intervene.edit import Edit
from sinkablate.intervene.editor import Editor
from sinkablate.intervene.edits import parse_edits, selected
from sinkablate.intervene.effects import Judge, no_judge
from sinkablate.intervene.exactness import check_exactness
from sinkablate.intervene.selection import Head, Plan, choose_heads, head_class
from sinkablate.intervene.tables import class_table, head_table, row_table, validation_table
from sinkablate.intervene.values import Values, collect, pathway_blocks


@dataclass(frozen=True)
class Experiment:
    """Everything that decides the numbers of an intervention. Made by `prepare`.

    Example::

        experiment = Experiment.prepare(model, records, rule, heads=[(5, 3)], edits=["mean_value", "donor_value"])
        rows = experiment.run(lambda: images.split(1))
        experiment.tables(rows)["heads"]
    """

    model: nn.Module
    """On its device, in eval mode."""
    plan: Plan
    edits: list[Edit]
    judge: Judge
    selection: SelectionConfig

    @classmethod
    def prepare(
        cls,
        model: nn.Module,
        measured: Records | Mapping[str, NDArray[Any]],
        rule: Rule,
        *,
        heads: Sequence[Head] | None = None,
        edits: str | Sequence[str] = "all",
        selection: SelectionConfig = SelectionConfig(),
        judge: Judge = no_judge,
        names: Sequence[str] | None = None,
        seed: int = 0,
    ) -> "Experiment":
        """Choose the heads to edit and check that there are enough images for the edits.

        Args:
            model: On its device, in eval mode.
            measured: What was measured on the images: records, or the arrays of a diagnosis' `per_image.npz`.
            rule: The rule that defines events and labels.
            heads: Heads to edit, as (block, head), on every image. None chooses the heads with enough events, and edits
                each on the images on which it has an event.
            edits: Names of edits and groups of edits; all by default.
            selection: The number of heads that are chosen, and of events that a head needs.
            judge: Scores the output of the edited copies, such as the outputs of a classifier.
            names: Names of the images; random draws depend on the seed, the name and the number of an image.
            seed: Seed of donors, directions, random tokens and random heads.

        Raises:
            UserError: An edit is unknown, or there is only one image and an edit takes values from others.
        """
        everywhere, given = heads is not None, heads or ()
        if isinstance(measured, Records):
            plan = Plan.of_records(measured, rule, given, everywhere, seed)
        else:
            plan = Plan.of(measured, rule, given, everywhere, seed)
        if heads is None:
            plan = replace(plan, heads=choose_heads(plan.labels, selection))
        if names is not None:
            plan = replace(plan, names=list(names))
        chosen = parse_edits(edits)
        require_donors(len(plan.names), chosen)
        return cls(model, plan, selected(chosen), judge, selection)

    @property
    def depth(self) -> int:
        """Number of blocks of the model."""
        return self.plan.labels.shape[1]

    @property
    def edited_images(self) -> list[int]:
        """Indices of the images on which something is edited."""
        everywhere = any(edit.of_pathway for edit in self.edits) and pathway_blocks(self.model)
        return [image for image in range(len(self.plan.names)) if everywhere or self.plan.edited(image)]

    def run(self, images: Callable[[], Iterable[Tensor]]) -> pl.DataFrame:
        """Edit all images.

        Args:
            images: Called twice; returns the images of the plan (1, C, H, W), in order and on the model's device.

        Returns:
            One row per image, head and edit.

        Raises:
            UserError: A check in float64 fails: an edit would not do what its name says.
        """
        with measurement_mode(self.model):
            edited = set(self.edited_images)
            if not edited:
                return row_table([])
            chosen = ((index, image) for index, image in enumerate(images()) if index in edited)
            rows = self.rows(collect(self.model, self.plan, images()), chosen)
            return row_table([row for of_image in rows for row in of_image])

    def rows(self, values: Values, images: Iterable[tuple[int, Tensor]]) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows of each image, after a check of all edits of the first image in float64.

        Args:
            values: Values of all images, from which donors are taken.
            images: Index in the plan, and image (1, C, H, W), of those to edit.

        Raises:
            UserError: A check in float64 fails.
        """
        editor = Editor(self.model, self.plan, values, self.edits, self.judge)
        for position, (index, image) in enumerate(images):
            if position == 0:
                check_exactness(editor, index, image)
            yield [{"place": index, **row} for row in editor.rows(index, image)]

    def tables(self, rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """Summarize rows.

        Returns:
            `heads`, one row per block, head and edit; `classes`, one row per label and edit; `validation`, one row per
            edit: how well the labels predict its effect.
        """
        labels = self.plan.labels
        classes = {(block, head): head_class(labels[:, block, head]) for block, head in self.plan.heads}
        heads = head_table(rows, classes, self.selection, everywhere=self.plan.everywhere)
        return {
            "heads": heads,
            "classes": class_table(heads, self.depth),
            "validation": validation_table(heads, self.depth),
        }


def require_donors(count: int, edits: Sequence[str]) -> None:
    """Check that there are other images for the edits that take values from them.

    Args:
        count: Number of images; 0 if it is not known.
        edits: Names of edits and groups.

    Raises:
        UserError: There is only one image.
    """
    borrowing = dict.fromkeys(edit.group or edit.name for edit in selected(edits) if "donors" in edit.needs)
    if count == 1 and borrowing:
        raise UserError(
            f"edits: values for {', '.join(borrowing)} come from other images or texts, but there is only one; "
            "give more of them, or name other edits"
        )

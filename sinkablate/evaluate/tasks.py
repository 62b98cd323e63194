"""The tasks, as data. To add one, add a value to `TASKS` and its settings to `EvaluationConfig`, or register it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from sinkablate.errors import UserError
from sinkablate.evaluate.discovery import boxed_images, discovery, reading_of
from sinkablate.evaluate.features import MASKS
from sinkablate.evaluate.images import PreparedImages
from sinkablate.evaluate.knn import knn
from sinkablate.evaluate.linear import linear
from sinkablate.evaluate.quantization import quantization
from sinkablate.evaluate.quantization_images import quantization_images
from sinkablate.evaluate.rows import BackboneName, Row
from sinkablate.evaluate.segmentation import segmentation
from sinkablate.evaluate.sinks import measured_images, sinks
from sinkablate.evaluate.subject import Subject
from sinkablate.figures.quantization import by_layer, by_scheme
from sinkablate.figures.segmentation import by_class
from sinkablate.figures.sinks import Drawn
from sinkablate.files.suggestions import did_you_mean

Reads = Iterable[tuple[str, PreparedImages]]


def _pooled_classes(subject: Subject) -> Reads:
    sets = subject.classes
    return [("pooled", sets.train.images), ("pooled", sets.val.images)]


def _masked_images(subject: Subject) -> Reads:
    sets = subject.masked
    frozen = [sets.val] if subject.config.segmentation.protocol == "augmented" else [sets.train, sets.val]
    return [(MASKS, part.masks) for part in (sets.train, sets.val)] + [("patches", part.images) for part in frozen]


def _boxed_images(subject: Subject) -> Reads:
    return [(reading_of(subject), boxed_images(subject).images)]


def _reads_of_quantization(subject: Subject) -> Reads:
    if quantization_images(subject).masks is None:
        return []
    train = subject.masked.train
    return [(MASKS, train.masks), ("patches", train.images)]


def _images_of_quantization(subject: Subject) -> Iterable[PreparedImages]:
    images = quantization_images(subject)
    return images.calibration, images.measured


def _images_of_sinks(subject: Subject) -> Iterable[PreparedImages]:
    return [measured_images(subject)]


def _nothing(_: Subject) -> Iterable[Any]:
    return []


@dataclass(frozen=True, kw_only=True)
class Task:
    """One way to evaluate a frozen backbone."""

    name: str
    """Also the name of its settings in `EvaluationConfig`."""
    title: str
    """What it measures, for tables and figures."""
    run: Callable[[Subject], list[Row]]
    """Measures a subject. The rows of its most important protocol come first."""
    shown: tuple[str, ...]
    """The metrics that the table on the terminal shows."""
    reads: Callable[[Subject], Reads] = _nothing
    """The features that it reads, as (reading, images): all ranks extract them before the first one runs the task."""
    measures: Callable[[Subject], Iterable[PreparedImages]] = _nothing
    """The images on which it runs the model itself."""
    settings: tuple[str, ...] = ()
    """Fields of `EvaluationConfig`, in addition to its own, that its numbers depend on."""
    floors: tuple[BackboneName, ...] = ("random", "pixels")
    """What is measured next to the model."""
    figures: Mapping[str, Callable[[pl.DataFrame], Drawn]] = field(default_factory=dict)
    """Name of a figure -> function that draws the rows of this task."""


TASKS = {
    task.name: task
    for task in (
        Task(
            name="knn",
            title="nearest neighbors",
            run=knn,
            shown=("acc1", "acc5"),
            reads=_pooled_classes,
            settings=("features",),
        ),
        Task(
            name="linear",
            title="linear probe",
            run=linear,
            shown=("acc1", "acc5"),
            reads=_pooled_classes,
            settings=("features",),
        ),
        Task(
            name="segmentation",
            title="semantic segmentation",
            run=segmentation,
            shown=("miou", "miou_best", "pixel_accuracy"),
            reads=_masked_images,
            figures={"segmentation": by_class},
        ),
        Task(
            name="discovery",
            title="object discovery",
            run=discovery,
            shown=("corloc", "corloc_image"),
            reads=_boxed_images,
        ),
        Task(
            name="sinks",
            title="sinks and outlier tokens",
            run=sinks,
            shown=("outliers", "events", "nop", "broadcast"),
            measures=_images_of_sinks,
            floors=("random",),
        ),
        Task(
            name="quantization",
            title="simulated quantization",
            run=quantization,
            shown=("acc1_drop", "miou_drop", "cosine"),
            reads=_reads_of_quantization,
            measures=_images_of_quantization,
            settings=("segmentation",),
            floors=(),
            figures={"quantization": by_scheme, "quantization_layers": by_layer},
        ),
    )
}
"""Name -> task."""


def register_task(task: Task) -> Task:
    """Add a task from anywhere; `evaluate --tasks` then accepts its name in this process.

    Raises:
        UserError: Another task has this name.
    """
    if task.name in TASKS:
        raise UserError(f"task {task.name}: a task with this name already exists; choose another name")
    TASKS[task.name] = task
    return task


def tasks_named(names: str) -> list[Task]:
    """Return tasks from their names, separated by commas.

    Raises:
        UserError: A name is unknown or given twice, or there is none.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in TASKS:
            hint = did_you_mean(name, TASKS) or f"; choose from {', '.join(TASKS)}"
            raise UserError(f"tasks={names}: there is no task {name}{hint}")
        if wanted.count(name) > 1:
            raise UserError(f"tasks={names}: {name} is named twice")
    if not wanted:
        raise UserError(f"tasks is empty; choose from {', '.join(TASKS)}")
    return [TASKS[name] for name in wanted]

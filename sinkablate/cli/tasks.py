"""The tasks that `fit` can train: each value of the key `task` stands for a LightningModule and its data module."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from sinkablate.errors import UserError
from sinkablate.files.strict_yaml import mapping_of

if TYPE_CHECKING:
    import polars as pl
    from jsonargparse import Namespace

Task = Literal["classify", "lejepa", "toy"]


class DataLink(NamedTuple):
    """A key of the model that takes its value from the data."""

    source: str
    """Key of the data with the same value."""
    target: str
    """Key of the model."""
    infer: "Callable[[Any], Any] | None" = None
    """Computes the value from the group of the data's key, if that key may be null."""

    @property
    def read(self) -> str:
        """The key or the group of the data that determines the value."""
        return self.source.rpartition(".")[0] if self.infer else self.source


class TaskDefinition(NamedTuple):
    """Everything that differs between tasks."""

    module: type[Any]
    """LightningModule."""
    data: type[Any]
    """Data module."""
    group: str
    """Group of the model's keys with the architecture and its mechanism."""
    name: Callable[["Namespace"], str]
    """Computes the model's name in run directories from that group."""
    links: tuple[DataLink, ...] = ()
    """Keys of the model that take their values from the data."""
    draw: "Callable[[pl.DataFrame, Path], None] | None" = None
    """Draws figures of `metrics.csv` into a folder when a run is closed."""

    def model_name(self, model: "Namespace") -> str:
        """Return the model's name in run directories."""
        return self.name(model[self.group])

    def mechanism(self, model: "Namespace") -> dict[str, Any]:
        """Return the mechanism of a variant, which becomes its W&B tags."""
        group = model[self.group]
        attention = group.attention
        return {
            "score": attention.score,
            "sink": attention.sink,
            "gate": attention.gate,
            "registers": group.registers or 0,
            "pathway": group.pathway.kind,
        }


def _number_of_classes(source: "Namespace") -> int:
    from omegaconf import OmegaConf

    from sinkablate.data.classes import number_of_classes, source_of

    values: Any = OmegaConf.to_container(
        OmegaConf.create(source.as_dict()), resolve=True
    )  # resolves ${oc.env:…} in a path
    return number_of_classes(source_of(values))


_IMAGES = (
    DataLink("source.num_classes", "num_classes", _number_of_classes),
    DataLink("image.in_chans", "in_chans"),
    DataLink("image.size", "img_size"),
)


def _classify() -> TaskDefinition:
    from sinkablate.data.datamodule import ImageData
    from sinkablate.tasks.classify import Classify
    from sinkablate.vit.timm_models import short_name

    return TaskDefinition(Classify, ImageData, "backbone", lambda backbone: short_name(backbone.name), _IMAGES)


def _lejepa() -> TaskDefinition:
    from sinkablate.data.datamodule import ImageData
    from sinkablate.tasks.lejepa import LeJepa
    from sinkablate.vit.timm_models import short_name

    return TaskDefinition(
        LeJepa, ImageData, "backbone", lambda backbone: f"lejepa_{short_name(backbone.name)}", _IMAGES
    )


def _toy() -> TaskDefinition:
    from sinkablate.toys.data import ToyData
    from sinkablate.toys.training import ToyTraining

    return TaskDefinition(ToyTraining, ToyData, "toy", lambda toy: f"toy_{toy.task}", draw=_draw_formation)


def _draw_formation(history: "pl.DataFrame", folder: Path) -> None:
    """Draw when the sinks of a toy form."""
    from sinkablate.figures.formation import formation
    from sinkablate.figures.sinks import save

    folder.mkdir(exist_ok=True)
    save(formation(history), folder / formation.__name__)


TASKS: dict[str, Callable[[], TaskDefinition]] = {"classify": _classify, "lejepa": _lejepa, "toy": _toy}
"""Value of `task` -> function that imports only what this task needs."""


def task_of(args: Sequence[str]) -> str:
    """Return the value of `task` on a command line and in its YAML files, before these can be parsed.

    Raises:
        UserError: There is no such task.
    """
    task = "classify"
    words = [part for arg in args for part in (arg.split("=", 1) if arg.startswith("--") else [arg])]
    for word, value in pairwise(words):
        if word == "--task":
            task = value
        elif word in ("--config", "-c") and Path(value).is_file():
            task = mapping_of(Path(value)).get("task") or task
    if task not in TASKS:
        raise UserError(f"task={task}: no such task; choose from {', '.join(get_args(Task))}")
    return task

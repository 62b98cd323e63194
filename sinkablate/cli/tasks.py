"""What `fit` can train: the key `task` chooses a LightningModule and its data module."""

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


class Follows(NamedTuple):
    """A key of the model whose value comes from the data."""

    source: str
    """Key of the data that has the same value."""
    target: str
    """Key of the model."""
    infer: "Callable[[Any], Any] | None" = None
    """Gives the value from the group of the data's key, where that key may be null."""

    @property
    def read(self) -> str:
        """The key or the group of the data that decides the value."""
        return self.source.rpartition(".")[0] if self.infer else self.source


class Program(NamedTuple):
    """One value of `task`: what differs from task to task."""

    module: type[Any]
    data: type[Any]
    group: str
    """Group of the model's keys that holds the architecture and its mechanism."""
    name: Callable[["Namespace"], str]
    """What run directories call the model, from that group."""
    follows: tuple["Follows", ...] = ()
    """Keys of the model that the data decide."""
    draw: "Callable[[pl.DataFrame, Path], None] | None" = None
    """Draws into a folder what `metrics.csv` shows when a run is closed."""

    def model_name(self, model: "Namespace") -> str:
        """How run directories call the model."""
        return self.name(model[self.group])

    def mechanism(self, model: "Namespace") -> dict[str, Any]:
        """The axes of a variant, as W&B tags."""
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

    values: Any = OmegaConf.to_container(OmegaConf.create(source.as_dict()), resolve=True)  # ${oc.env:…} in a path
    return number_of_classes(source_of(values))


_IMAGES = (
    Follows("source.num_classes", "num_classes", _number_of_classes),
    Follows("image.in_chans", "in_chans"),
    Follows("image.size", "img_size"),
)


def _classify() -> Program:
    from sinkablate.data.datamodule import ImageData
    from sinkablate.tasks.classify import Classify
    from sinkablate.vit.timm_models import short_name

    return Program(Classify, ImageData, "backbone", lambda backbone: short_name(backbone.name), _IMAGES)


def _lejepa() -> Program:
    from sinkablate.data.datamodule import ImageData
    from sinkablate.tasks.lejepa import LeJepa
    from sinkablate.vit.timm_models import short_name

    return Program(LeJepa, ImageData, "backbone", lambda backbone: f"lejepa_{short_name(backbone.name)}", _IMAGES)


def _toy() -> Program:
    from sinkablate.toys.data import ToyData
    from sinkablate.toys.training import ToyTraining

    return Program(ToyTraining, ToyData, "toy", lambda toy: f"toy_{toy.task}", draw=_draw_formation)


def _draw_formation(history: "pl.DataFrame", folder: Path) -> None:
    """When the sinks of a toy form."""
    from sinkablate.figures.formation import formation
    from sinkablate.figures.sinks import save

    folder.mkdir(exist_ok=True)
    save(formation(history), folder / formation.__name__)


PROGRAMS: dict[str, Callable[[], Program]] = {"classify": _classify, "lejepa": _lejepa, "toy": _toy}
"""One function per value of `task`: each imports what its task needs, and no more."""


def chosen(args: Sequence[str]) -> str:
    """The value of `task` that command line and YAML files end with; it is needed before they can be parsed.

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
    if task not in PROGRAMS:
        raise UserError(f"task={task}: there are {', '.join(get_args(Task))}")
    return task

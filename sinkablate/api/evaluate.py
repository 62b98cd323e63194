"""Evaluate the frozen features of a model in memory."""

import copy
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import polars as pl
import torch
from torch import nn

from sinkablate.api.images import Transform, preparation_of
from sinkablate.api.run import Run, load_run
from sinkablate.config import EvaluationConfig, SourceConfig, build
from sinkablate.config.types import checked
from sinkablate.diagnose.model import LoadedModel
from sinkablate.diagnostics.random_state import random_state_kept
from sinkablate.errors import UserError, require_at_least
from sinkablate.evaluate.cache import FeatureCache
from sinkablate.evaluate.evaluation import Evaluation
from sinkablate.evaluate.images import transform_digest
from sinkablate.evaluate.rows import scalars, table_of
from sinkablate.evaluate.subject import subject_of
from sinkablate.evaluate.tasks import tasks_named
from sinkablate.files.suggestions import did_you_mean
from sinkablate.vit.find import unwrap
from sinkablate.vit.init import MECHANISMS, reset_mechanisms

Model = Annotated[nn.Module | Run | str | Path, "a vision transformer, a run, or the directory of a run"]


@dataclass(frozen=True)
class Evaluated:
    """The results of an evaluation, as `evaluate` returns them."""

    rows: pl.DataFrame
    """One row per task, protocol, metric, item (class, image or layer), seed and backbone."""
    summary: dict[str, float]
    """The numbers of the entire set by name, such as `knn/acc1`; floors are named `knn/acc1@random`."""


@checked
def evaluate(
    model: Model,
    tasks: Sequence[str] | str = ("knn",),
    *,
    data: str | Path | None = None,
    transform: Transform | None = None,
    settings: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (0,),
    floors: bool = True,
    cache: str | Path | None = None,
    batch_size: int = 32,
) -> Evaluated:
    """Measure how good the frozen features of a vision transformer are; prints nothing and keeps no files.

    The numbers are those of `sinkablate evaluate`. The model runs in eval mode on its own device, without TF32 and
    autocast; afterward its modes and all random states are what they were before.

    Args:
        model: A vision transformer of timm, of Hugging Face's transformers or from `create_model`; or a run, or its
            directory, whose last checkpoint is evaluated.
        tasks: Names of tasks, as in `evaluate --tasks`.
        data: A folder with the folders `train` and `val`, each with one folder per class. By default the images of the
            run, otherwise the embedded images.
        transform: Turns a PIL image into a tensor (C, H, W). The default is the preprocessing of the run, or that of a
            timm model's weights.
        settings: Settings of the tasks by name, such as `{"knn": {"k": [20]}, "features": {"kind": "both"}}`.
        seeds: Seeds of the probes.
        floors: Measure the same architecture with random weights, and raw pixels, too.
        cache: Folder for the features, which later calls with the same weights, images and preprocessing reuse; by
            default they are deleted at the end. A transform is identified by what it makes of a few pictures.
        batch_size: Images per forward pass.

    Returns:
        The polars table `.rows` and the dictionary `.summary`.

    Raises:
        UserError: An argument cannot be used, or an image cannot be read.

    Example::

        run = sa.load_run("runs/vit_mini-gate_reg-s0")
        print(sa.evaluate(run, ["knn", "linear"]).summary["knn/acc1"])
    """
    require_at_least(batch_size, 1, "batch_size")
    chosen = tasks_named(tasks if isinstance(tasks, str) else ",".join(tasks))
    loaded = _loaded(model, transform)
    device = next(loaded.model.parameters()).device
    with (
        nullcontext(str(cache)) if cache is not None else TemporaryDirectory() as folder,
        random_state_kept(),
        _modes_kept(loaded.model),
    ):
        subject = subject_of(
            loaded,
            _config(settings or {}),
            FeatureCache(Path(folder), quiet=True),
            None if data is None else _folder_source(Path(data)),
            device=device,
            seeds=tuple(seeds),
            batch_size=batch_size,
            note=lambda _: None,
        )
        evaluation = Evaluation(subject=subject, tasks=chosen, floors=floors)
        rows = table_of(row for task in chosen for row in evaluation.rows_of(task))
    return Evaluated(rows, scalars(rows))


@contextmanager
def _modes_kept(model: nn.Module) -> Any:
    """Restore the modes of all modules after the block."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _config(settings: Mapping[str, Any]) -> EvaluationConfig:
    """Build the settings of all tasks.

    Raises:
        UserError: A name is unknown, or a value is invalid.
    """
    known = {field.name: field.type for field in fields(EvaluationConfig)}
    for task, values in settings.items():
        if task not in known:
            raise UserError(f"settings: there is no group {task}{did_you_mean(task, known)}")
        names = [field.name for field in fields(known[task])]  # type: ignore[arg-type]
        for name in values:
            if name not in names:
                raise UserError(f"settings: {task} has no setting {name}{did_you_mean(name, names)}")
    plain = {
        task: {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        for task, values in settings.items()
    }
    config: EvaluationConfig = build(EvaluationConfig, plain)
    return config


def _folder_source(folder: Path) -> SourceConfig:
    return SourceConfig(format="folder", train=str(folder / "train"), val=str(folder / "val"))


def _loaded(model: Any, transform: Transform | None) -> LoadedModel:
    """Return what an evaluation knows about a model."""
    if isinstance(model, str | Path):
        model = load_run(model)
    if isinstance(model, Run):
        return model.loaded
    model = unwrap(model)
    prepare = preparation_of(model, transform)
    preprocessing = transform_digest(prepare.transform, prepare.in_chans)
    return LoadedModel(
        model=model,
        untrained=lambda seed: _redrawn(model, seed),
        in_chans=prepare.in_chans,
        transform=prepare.transform,
        description={"model": type(model).__name__, "preprocessing": preprocessing},
    )


def _redrawn(model: nn.Module, seed: int) -> nn.Module:
    """Return a copy of a model with random weights.

    Every module of torch and timm that can draws its parameters as when it was created, and so do mechanisms; other
    matrices, such as position embeddings, are drawn from N(0, 0.02²), and other vectors, such as LayerScale, keep their
    values.
    """
    fresh = copy.deepcopy(model)
    drawn: set[int] = set()
    with random_state_kept(seed), torch.no_grad():
        for module in fresh.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset) and not isinstance(module, MECHANISMS):
                reset()
                drawn |= {id(parameter) for parameter in module.parameters(recurse=False)}
        for parameter in fresh.parameters():
            if id(parameter) not in drawn and parameter.ndim > 1:
                parameter.normal_(std=0.02)
    reset_mechanisms(fresh.cpu(), seed)  # its generators are on the CPU
    return fresh.eval()

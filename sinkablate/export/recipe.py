"""The settings with which a run was trained, without anything that belongs to a person or a machine."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any

from sinkablate.config import (
    AugmentConfig,
    BackboneConfig,
    CommonModeConfig,
    EmaConfig,
    ImageConfig,
    LeJepaConfig,
    LossConfig,
    OptimConfig,
    RetrofitConfig,
    ViewsConfig,
)
from sinkablate.export.trained import TrainedModel

MODEL = {
    "optim": OptimConfig,
    "loss": LossConfig,
    "retrofit": RetrofitConfig,
    "ema": EmaConfig,
    "common_mode": CommonModeConfig,
    "lejepa": LeJepaConfig,
}
DATA = {"image": ImageConfig, "augment": AugmentConfig, "views": ViewsConfig}
"""Groups of keys whose values are quoted, below `model` and `data`."""
TRAINER = {
    "max_epochs": None,
    "max_steps": -1,
    "limit_train_batches": None,
    "limit_val_batches": None,  # the scores of the model card are of these batches
    "precision": None,
    "accumulate_grad_batches": 1,
    "gradient_clip_val": None,
}
"""Keys of the trainer that are quoted, and the values with which they have no effect."""


def recipe(trained: TrainedModel) -> dict[str, Any]:
    """Return the settings of a run that determine its training, as nested keys of a config file.

    Keys at their default are left out, and so are all that hold a path or an address: the location of the data, of
    checkpoints and of the run, and those of W&B.
    """
    stored = trained.config
    backbone = changed(BackboneConfig, asdict(trained.description.backbone))
    model = {"backbone": {"name": trained.description.backbone.name} | backbone, **_groups(MODEL, stored["model"])}
    trainer = {key: stored["trainer"].get(key, off) for key, off in TRAINER.items()}
    trainer = {key: value for key, value in trainer.items() if value is not None and value != TRAINER[key]}
    data = {"batch_size": stored["data"].get("batch_size"), **_groups(DATA, stored["data"])}
    return {
        "variant": trained.variant,
        "task": stored.get("task", "classify"),
        "seed_everything": stored.get("seed_everything", 0),
        "model": model,
        "data": data,
        "trainer": trainer,
    }


def _groups(kinds: Mapping[str, type[Any]], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changed values of some groups of keys, without groups of which none is changed."""
    groups = {name: changed(kind, stored[name]) for name, kind in kinds.items() if isinstance(stored.get(name), dict)}
    return {name: values for name, values in groups.items() if values}


def changed(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a group of keys that differ from the defaults of its config class."""
    result: dict[str, Any] = {}
    for field in fields(kind):
        if field.name not in values or field.default is MISSING:
            continue
        value = values[field.name]
        if is_dataclass(field.default):
            if inner := changed(type(field.default), value):
                result[field.name] = inner
        elif _plain(value) != _plain(field.default):
            result[field.name] = _plain(value)
    return result


def _plain(value: Any) -> Any:
    """Return a value as a YAML file holds it."""
    return list(value) if isinstance(value, tuple) else value

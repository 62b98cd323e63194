"""Comparing what a checkpoint was made with to what is to be loaded from it, by the keys a user sets."""

from collections.abc import Mapping
from typing import Any

import lightning as L
from torch import Tensor

from sinkablate.config import flat
from sinkablate.config.renames import with_current_names
from sinkablate.errors import UserError


def refuse_another(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Stop at the first key whose value differs; what an older version stored knows no newer key.

    Raises:
        UserError: Names the key and both values.
    """
    for key, value in now.items():
        if key in saved and saved[key] != value:
            raise UserError(f"{key}={value} differs from the checkpoint's {saved[key]}")


def refuse_another_run(module: L.LightningModule, checkpoint: Mapping[str, Any], groups: tuple[str, ...]) -> None:
    """See that a checkpoint's tensors fit a task and, to train on from it, that it was trained in the same way.

    Args:
        module: The task, with its hyper-parameters.
        checkpoint: What is to be loaded.
        groups: Groups of the model's keys, beside the backbone's, that decide its tensors.

    Raises:
        UserError: Names the first key, or tensor, that differs.
    """
    trains = module._trainer is not None and module._trainer.training
    saved, now = (
        _model_keys(h, groups) | (training_keys(h) if trains else {})
        for h in (checkpoint.get("hyper_parameters", {}), module.hparams)
    )
    refuse_another(saved, now)
    shapes, ours = (
        {k: tuple(v.shape) for k, v in state.items() if isinstance(v, Tensor)}
        for state in (checkpoint["state_dict"], module.state_dict())
    )
    for name in ours | shapes:
        if shapes.get(name) != ours.get(name):
            raise UserError(
                f"the checkpoint is of another model: {name} has shape {shapes.get(name)} there, {ours.get(name)} here"
            )


def _model_keys(hparams: Mapping[str, Any], groups: tuple[str, ...]) -> dict[str, Any]:
    """What decides the tensors of a model, by the key a user sets."""
    followed = {
        "num_classes": "data.source.num_classes",
        "in_chans": "data.image.in_chans",
        "img_size": "data.image.size",
    }
    backbone = flat(hparams.get("backbone", {}), "model.backbone.")
    for source in ("pretrained", "checkpoint"):
        backbone.pop(f"model.backbone.{source}", None)
    return (
        backbone
        | {key: hparams[name] for name, key in followed.items() if name in hparams}
        | with_current_names(flat({group: hparams.get(group, {}) for group in groups}, "model."))
    )


def training_keys(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """What a training goes on with as it began, by the key a user sets: the optimizer, its schedule, the loss.

    Their state comes from the checkpoint, so that another value would stand in `config.yaml` and do nothing.
    """
    groups = {name: value for name, value in hparams.items() if isinstance(value, Mapping) and name != "backbone"}
    return with_current_names(flat(groups, "model."))

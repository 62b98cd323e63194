"""Checks that a checkpoint fits the task into which it is loaded, with errors that name the user's keys."""

from collections.abc import Mapping
from typing import Any

import lightning as L
from torch import Tensor

from sinkablate.config import flat
from sinkablate.config.renames import with_current_names
from sinkablate.errors import UserError

ADDED = {
    "model.optim.decay": "matrices",
    "model.lejepa.clip_probe": True,
    "model.common_mode.weight": 0.0,
    "model.retrofit.added_steps": 0,
    "model.retrofit.cls_weight": 0.0,
    "model.retrofit.patch_weight": 0.0,
}
"""Training keys that checkpoints of earlier versions lack -> the value with which those were trained."""


def refuse_another(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse a checkpoint if the value of a key differs; keys that the checkpoint does not have are not compared.

    Args:
        saved: Keys and values of the checkpoint.
        now: Keys and values of the task.

    Raises:
        UserError: Names the first key that differs, and both values.
    """
    for key, value in now.items():
        if key in saved and saved[key] != value:
            raise UserError(f"{key}={value} differs from the checkpoint's {saved[key]}")


def refuse_another_run(module: L.LightningModule, checkpoint: Mapping[str, Any], groups: tuple[str, ...]) -> None:
    """Refuse a checkpoint whose tensors do not fit a task or, when training is resumed, whose settings differ.

    Args:
        module: The task, with its hyperparameters.
        checkpoint: The content of the checkpoint.
        groups: Groups of the model's keys, in addition to the backbone, that determine its tensors.

    Raises:
        UserError: Names the first key or tensor that differs.
    """
    trains = module._trainer is not None and module._trainer.training
    saved, now = (
        _model_keys(h, groups) | (training_keys(h) if trains else {})
        for h in (checkpoint.get("hyper_parameters", {}), module.hparams)
    )
    refuse_another(saved, now)
    saved_shapes, shapes = (
        {k: tuple(v.shape) for k, v in state.items() if isinstance(v, Tensor)}
        for state in (checkpoint["state_dict"], module.state_dict())
    )
    for name in shapes | saved_shapes:
        theirs, own = saved_shapes.get(name), shapes.get(name)
        if theirs != own:
            raise UserError(
                f"the checkpoint belongs to another model: {name} has shape {theirs} in the checkpoint, but {own} in "
                "this model"
            )


def _model_keys(hparams: Mapping[str, Any], groups: tuple[str, ...]) -> dict[str, Any]:
    """Return the user's keys that determine the tensors of a model, with their values."""
    followed = {
        "num_classes": "data.source.num_classes",
        "in_chans": "data.image.in_chans",
        "img_size": "data.image.size",
    }
    backbone = flat(hparams.get("backbone", {}), "model.backbone.")
    for independent in ("pretrained", "checkpoint", "attention.kernel"):
        backbone.pop(f"model.backbone.{independent}", None)
    return (
        backbone
        | {key: hparams[name] for name, key in followed.items() if name in hparams}
        | with_current_names(flat({group: hparams.get(group, {}) for group in groups}, "model."))
    )


def training_keys(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return the user's keys that must not change when training is resumed: optimizer, schedule and loss.

    Their state is loaded from the checkpoint, so another value would be written to `config.yaml` without any effect.
    """
    groups = {name: value for name, value in hparams.items() if isinstance(value, Mapping) and name != "backbone"}
    return ADDED | with_current_names(flat(groups, "model."))

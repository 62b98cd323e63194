"""Checkpoints of runs as a start: their moving average, and mechanisms that are added to a run without any."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from variants import SMALL, VARIANTS, noise, perturbed

from sinkablate.config import AttentionConfig, BackboneConfig, EmaConfig
from sinkablate.errors import UserError
from sinkablate.tasks.classify import Classify
from sinkablate.vit.additions import additions_of
from sinkablate.vit.backbone import build_backbone
from sinkablate.vit.drift import drift

GATE = AttentionConfig(gate="headwise", gate_start="identity")
IMAGES = noise(2, 1, 28, 28)


def write_checkpoint(path: Path, task: Classify) -> str:
    """Write what a run's checkpoint says about its model."""
    torch.save({"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}, path)
    return str(path)


def trained(path: Path, *, decay: float = 0.0, **fields: Any) -> tuple[str, Classify]:
    """The checkpoint of a run, and its task."""
    task = Classify(backbone=BackboneConfig(**{**SMALL, **fields}), ema=EmaConfig(decay=decay))
    perturbed(task.backbone)
    return write_checkpoint(path, task), task


def load(path: str, num_classes: int = 10, size: int = 28, **fields: Any) -> Any:
    config = BackboneConfig(**{**SMALL, **fields}, checkpoint=path)
    return build_backbone(config, num_classes=num_classes, in_chans=1, img_size=size, seed=7)


def assert_holds(model: Any, state: dict[str, Tensor]) -> None:
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_moving_average_of_a_run_is_taken_by_default_and_said(tmp_path: Path) -> None:
    path, task = trained(tmp_path / "last.ckpt", decay=0.5)
    assert task.ema is not None
    perturbed(task.ema.module, seed=1)
    write_checkpoint(tmp_path / "last.ckpt", task)
    average, last = task.ema.module.state_dict(), task.backbone.state_dict()
    for key, expected in {None: average, "ema.module": average, "backbone": last}.items():
        model = load(path, checkpoint_key=key)
        assert_holds(model, expected)
    assert model.weights_origin.sentences == [
        f"backbone was read from {path}, which also contains ema.module; choose with checkpoint_key"
    ]
    with pytest.raises(UserError, match=r"checkpoint_key=teacher: .* contains backbone, ema.module; choose one of"):
        load(path, checkpoint_key="teacher")


def test_a_run_without_an_average_has_nothing_to_say(tmp_path: Path) -> None:
    path, task = trained(tmp_path / "last.ckpt")
    model = load(path)
    assert_holds(model, task.backbone.state_dict())
    assert model.weights_origin.sentences == []


def test_a_gate_that_starts_as_the_identity_is_added_to_a_run(tmp_path: Path) -> None:
    path, task = trained(tmp_path / "last.ckpt")
    model = load(path, attention=GATE)
    additions = additions_of(model)
    assert additions is not None
    assert additions.names == ("headwise gate",)
    assert all(".gate." in name for name in additions.parameters)
    assert_holds(additions.unchanged(), task.backbone.state_dict())
    torch.testing.assert_close(model.eval()(IMAGES), task.backbone.eval()(IMAGES), rtol=1e-5, atol=1e-5)
    assert drift(model, task.backbone, IMAGES)["tokens"] <= 1e-6


@pytest.mark.parametrize("registers", [None, 0])
def test_registers_and_a_head_are_added_to_a_run(tmp_path: Path, registers: int | None) -> None:
    """The position of CLS becomes part of its token; a run with `registers: 0` is one without registers."""
    path, task = trained(tmp_path / "last.ckpt", registers=registers)
    model, state = load(path, num_classes=3, registers=2), task.backbone.state_dict()
    additions = additions_of(model)
    assert additions is not None
    assert additions.parameters == {"reg_token", "head.weight", "head.bias"}
    assert torch.equal(model.cls_token, state["cls_token"] + state["pos_embed"][:, :1])
    assert torch.equal(model.pos_embed, state["pos_embed"][:, 1:])
    assert drift(model, additions.unchanged(), IMAGES)["tokens"] > 1e-3
    assert torch.equal(model.head.weight, build_backbone(BackboneConfig(**SMALL), num_classes=3, seed=7).head.weight)  # type: ignore[union-attr]


def test_positions_are_resampled_before_a_gate_is_added(tmp_path: Path) -> None:
    path, _ = trained(tmp_path / "last.ckpt")
    model = load(path, size=42, attention=GATE)
    assert torch.equal(model.pos_embed, load(path, size=42).pos_embed)
    assert model.position_record.resampling.new == (6, 6)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in ("baseline", "layerscale")])
def test_nothing_is_added_to_a_run_with_mechanisms(tmp_path: Path, name: str) -> None:
    path, _ = trained(tmp_path / "last.ckpt", **VARIANTS[name])
    assert additions_of(load(path, **VARIANTS[name])) is None
    with pytest.raises(UserError, match="belongs to another model"):
        load(path, attention=AttentionConfig(sink="kv_bias", gate="elementwise"), registers=3)

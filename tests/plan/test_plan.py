"""The counts of `plan` agree with closed forms and with a real training step."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from running import CONFIGS, assert_refused, run
from torch.autograd.graph import saved_tensors_hooks

from sinkablate.config import BackboneConfig
from sinkablate.vit.backbone import build_backbone

IMAGENET = ("--config", CONFIGS / "data" / "imagenet.yaml", "--images", "1281167")


def plan(*args: str | Path) -> dict[str, Any]:
    """Result of `plan` without measurements, as JSON."""
    words = ("--device", "h100", "--diagnostics.every_n_steps", "0", "--json")
    result: dict[str, Any] = json.loads(run("plan", *args, *words).succeeded().out)
    return result


def closed_form(
    tokens: int, width: int, depth: int, mlp: int, patches: int, patch: int, channels: int, classes: int
) -> int:
    """FLOPs of a plain ViT, with two operations per multiplication."""
    block = 8 * tokens * width**2 + 4 * tokens**2 * width + 4 * tokens * width * mlp
    return depth * block + 2 * patches * channels * patch**2 * width + 2 * width * classes


def test_flops_and_parameters_of_a_vit_s16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGENET_TRAIN", raising=False)
    planned = plan("--config", CONFIGS / "baseline.yaml", *IMAGENET, "--config", CONFIGS / "model" / "vit_s16.yaml")
    assert planned["flops_per_image"] == pytest.approx(closed_form(197, 384, 12, 1536, 196, 16, 3, 1000), rel=0.02)
    assert planned["parameters"] == 22_050_664
    assert planned["steps"] == 12 * (1281167 // 1024)
    assert planned["checkpoint_bytes"] == pytest.approx(12 * planned["parameters"], rel=0.01)


@pytest.mark.parametrize("config", ["gate_reg", "sink_learned", "pointwise", "pathway", "gate_elementwise_reg"])
def test_a_mechanism_does_not_reduce_the_counts_of_the_baseline(config: str) -> None:
    planned = plan("--config", CONFIGS / f"{config}.yaml")
    baseline = plan("--config", CONFIGS / "baseline.yaml")
    assert planned["flops_per_image"] >= baseline["flops_per_image"]
    assert planned["parameters"] >= baseline["parameters"]
    assert (planned["steps_per_epoch"], planned["steps"]) == (156, 1872)


def test_activation_memory_is_that_of_a_forward_pass() -> None:
    planned = plan("--config", CONFIGS / "baseline.yaml")
    model = build_backbone(BackboneConfig(), num_classes=10, in_chans=1, img_size=28, seed=0).train()
    saved: dict[int, Any] = {}
    parameters = {p.data_ptr() for p in model.parameters()}

    def record(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(record, lambda tensor: tensor):
        model(torch.zeros(16, 1, 28, 28))
    measured = sum(tensor.untyped_storage().nbytes() for tensor in saved.values()) / 16
    assert planned["activation_bytes_per_image"] == pytest.approx(measured, rel=0.1)


def test_a_lejepa_recipe_counts_its_views() -> None:
    one = plan("--config", CONFIGS / "lejepa_small.yaml")
    two = plan("--config", CONFIGS / "lejepa_small.yaml", "--data.views.count", "8")
    assert two["flops_per_image"] == pytest.approx(2 * one["flops_per_image"], rel=0.01)
    assert two["parameters"] == one["parameters"]


def test_without_data_only_the_number_of_steps_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGENET_TRAIN", raising=False)
    text = run("plan", "--config", CONFIGS / "gate_reg.yaml", *IMAGENET[:2]).succeeded().out
    assert "unknown; set --images N" in text
    assert "GFLOP" in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--images", "0"), "images must be at least 1, got 0"),
        (("--model.backbone.nothing", "1"), "nothing"),
        (("--config", str(CONFIGS / "toy" / "nop.yaml")), "task=toy: plan counts images"),
    ],
)
def test_invalid_arguments_are_refused(args: tuple[str, ...], message: str) -> None:
    assert_refused(run("plan", *args), message)


@pytest.mark.parametrize(
    "args",
    [
        ("--model.backbone.global_pool=map",),
        ("--model.backbone.name=vit_base_patch16_siglip_224", "--data.image.size=32", "--model.backbone.depth=1"),
    ],
    ids=str,
)
def test_plan_counts_attention_pooled_models(args: tuple[str, ...]) -> None:
    assert "GFLOP" in run("plan", *args).succeeded().out

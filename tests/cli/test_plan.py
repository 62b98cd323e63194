"""`plan` is right: counts against closed forms and against a training step that is really made."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from running import CONFIGS, run
from torch.autograd.graph import saved_tensors_hooks

from sinkablate.config import BackboneConfig
from sinkablate.vit.backbone import build_backbone

IMAGENET = ("--config", CONFIGS / "data" / "imagenet.yaml", "--images", "1281167")


def plan(*args: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("plan", *args, "--json").succeeded().out)
    return found


def closed_form(
    tokens: int, width: int, depth: int, mlp: int, patches: int, patch: int, channels: int, classes: int
) -> int:
    """Two operations for every multiplication of a plain ViT."""
    block = 8 * tokens * width**2 + 4 * tokens**2 * width + 4 * tokens * width * mlp
    return depth * block + 2 * patches * channels * patch**2 * width + 2 * width * classes


def test_flops_and_parameters_of_a_vit_s16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGENET_TRAIN", raising=False)
    found = plan("--config", CONFIGS / "baseline.yaml", *IMAGENET, "--config", CONFIGS / "model" / "vit_s16.yaml")
    assert found["flops_per_image"] == pytest.approx(closed_form(197, 384, 12, 1536, 196, 16, 3, 1000), rel=0.02)
    assert found["parameters"] == 22_050_664
    assert found["steps"] == 12 * (1281167 // 1024)
    assert found["checkpoint_bytes"] == pytest.approx(12 * found["parameters"], rel=0.01)


@pytest.mark.parametrize("config", ["gate_reg", "sink_learned", "pointwise", "pathway", "gate_elementwise_reg"])
def test_parameters_are_those_of_the_run(config: str) -> None:
    found = plan("--config", CONFIGS / f"{config}.yaml")
    shown = run("fit", "--config", CONFIGS / f"{config}.yaml", "--print_config").succeeded()
    assert shown.out
    baseline = plan("--config", CONFIGS / "baseline.yaml")
    assert found["flops_per_image"] >= baseline["flops_per_image"]
    assert found["parameters"] >= baseline["parameters"]
    assert (found["steps_per_epoch"], found["steps"]) == (156, 1872)


def test_activations_are_what_a_step_keeps() -> None:
    found = plan("--config", CONFIGS / "baseline.yaml")
    model = build_backbone(BackboneConfig(), num_classes=10, in_chans=1, img_size=28, seed=0).train()
    seen: dict[int, Any] = {}
    own = {p.data_ptr() for p in model.parameters()}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        model(torch.zeros(16, 1, 28, 28))
    kept = sum(tensor.untyped_storage().nbytes() for tensor in seen.values()) / 16
    assert found["activation_bytes_per_image"] == pytest.approx(kept, rel=0.1)


def test_a_lejepa_recipe_counts_its_views() -> None:
    one = plan("--config", CONFIGS / "lejepa_small.yaml")
    two = plan("--config", CONFIGS / "lejepa_small.yaml", "--data.views.count", "8")
    assert two["flops_per_image"] == pytest.approx(2 * one["flops_per_image"], rel=0.01)
    assert two["parameters"] == one["parameters"]


def test_without_data_the_steps_are_unknown_and_the_rest_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGENET_TRAIN", raising=False)
    said = run("plan", "--config", CONFIGS / "gate_reg.yaml", *IMAGENET[:2]).succeeded().out
    assert "unknown; set --images N" in said
    assert "GFLOP" in said


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("--images", "0"), "images=0: must be at least 1"),
        (("--model.backbone.nothing", "1"), "nothing"),
        (("--config", str(CONFIGS / "toy" / "nop.yaml")), "task=toy: plan counts images"),
    ],
)
def test_mistakes(args: tuple[str, ...], line: str) -> None:
    said = run("plan", *args)
    assert (said.code, line in said.err) == (2, True), said.err


@pytest.mark.parametrize(
    "words",
    [
        ("--model.backbone.global_pool=map",),
        ("--model.backbone.name=vit_base_patch16_siglip_224", "--data.image.size=32", "--model.backbone.depth=1"),
    ],
    ids=str,
)
def test_plan_counts_attention_pooled_models(words: tuple[str, ...]) -> None:
    assert "GFLOP" in run("plan", *words).succeeded().out

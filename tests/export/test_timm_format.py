"""The timm format: timm alone computes the same logits, and what timm lacks is named."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exporting import COLOR, GRAY, outputs, untrained

from sinkablate.config import AttentionConfig, BackboneConfig, ConfigError, ImageConfig, PathwayConfig
from sinkablate.errors import UserError
from sinkablate.export.hub_format import write_hub
from sinkablate.export.timm_format import write_timm
from sinkablate.vit.additions import additions_of
from sinkablate.vit.backbone import build_backbone

TINY: dict[str, Any] = {"name": "vit_tiny_patch16_224", "depth": 2}
HEADWISE, ELEMENTWISE = AttentionConfig(gate="headwise"), AttentionConfig(gate="elementwise")
EXPRESSED: dict[str, tuple[BackboneConfig, ImageConfig, int]] = {
    "plain": (BackboneConfig(), GRAY, 10),
    "registers": (BackboneConfig(registers=4), GRAY, 10),
    "registers_with_positions": (BackboneConfig(registers=2, register_pos_embed=True), GRAY, 10),
    "fixed_positions": (BackboneConfig(fixed_sincos=True), GRAY, 10),
    "matched_control": (BackboneConfig(match_parameters="elementwise", layers=(0, 1, 2, 3)), GRAY, 10),
    "mean_of_patches": (BackboneConfig(**TINY, class_token=False, global_pool="avg", init_values=0.1), COLOR, 7),
    "no_head": (BackboneConfig(**TINY, drop_path_rate=0.1, drop_rate=0.1), COLOR, 0),
    "gate_per_channel": (BackboneConfig(attention=ELEMENTWISE), GRAY, 10),
    "gate_per_head": (BackboneConfig(attention=HEADWISE, registers=2, register_pos_embed=True), GRAY, 10),
    "gate_frozen": (BackboneConfig(attention=AttentionConfig(gate="headwise", gate_frozen=True)), GRAY, 10),
    "gate_in_one_block": (BackboneConfig(attention=ELEMENTWISE, layers=(-1,), registers=1), GRAY, 10),
    "gate_without_qkv_bias": (BackboneConfig(**TINY, attention=HEADWISE, qkv_bias=False), COLOR, 7),
    "gate_mean_of_patches": (
        BackboneConfig(**TINY, attention=ELEMENTWISE, class_token=False, global_pool="avg", init_values=0.1),
        COLOR,
        7,
    ),
    "rectangle": (BackboneConfig(registers=2, register_pos_embed=True), replace(GRAY, size=(28, 42)), 10),
    "gate_rectangle": (BackboneConfig(attention=HEADWISE, registers=2), replace(GRAY, size=(42, 28)), 10),
    "gate_attention_pooling": (BackboneConfig(**TINY, attention=ELEMENTWISE, global_pool="map"), COLOR, 0),
    "gate_dinov2": (
        BackboneConfig(name="vit_small_patch14_dinov2", depth=1, attention=HEADWISE, registers=4),
        ImageConfig(size=28, in_chans=3, mean=(0.5,) * 3, std=(0.5,) * 3),
        3,
    ),
    "gate_clip": (
        BackboneConfig(name="vit_base_patch32_clip_quickgelu_224", depth=1, embed_dim=96, attention=ELEMENTWISE),
        COLOR,
        3,
    ),
    "other_family": (BackboneConfig(name="deit_tiny_distilled_patch16_224", depth=1), COLOR, 3),
}
"""Variants that timm can express."""
ALONE = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "sinkablate":
            raise ImportError("sinkablate is absent")

sys.meta_path.insert(0, Absent())
import timm, torch
for name, (images, expected) in torch.load(sys.argv[1], weights_only=True).items():
    model = timm.create_model(f"local-dir:{name}", pretrained=True).eval()
    with torch.no_grad():
        single, double = model(images.float()), model.double()(images)
    scale = expected.abs().max()
    assert double.shape == expected.shape, name
    assert (double - expected).abs().max() <= 1e-6 * scale, (name, double, expected)
    assert (single - expected).abs().max() <= 1e-5 * scale, (name, single, expected)
    print(name)
assert not any(name.partition(".")[0] == "sinkablate" for name in sys.modules)
"""
"""A program that loads folders with timm where sinkablate cannot be imported. In float64, the only difference between
the models is that the sum of CLS token and position was rounded to float32; in float32, every operation rounds."""


def test_timm_alone_computes_the_same_logits(tmp_path: Path) -> None:
    cases = {}
    for name, (backbone, image, num_classes) in EXPRESSED.items():
        trained = untrained(backbone, image, num_classes)
        (tmp_path / name).mkdir()
        write_timm(trained, tmp_path / name)
        cases[name] = outputs(trained.model.double(), trained)
    torch.save(cases, tmp_path / "cases.pt")
    command = [sys.executable, "-I", "-c", ALONE, "cases.pt"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(EXPRESSED)


def test_the_description_is_that_of_the_run(tmp_path: Path) -> None:
    trained = untrained(BackboneConfig(**TINY, drop_path_rate=0.1), COLOR, 3, classes=("cat", "dog", "owl"))
    write_timm(trained, tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    weights = content["pretrained_cfg"]
    assert content["architecture"] == "vit_tiny_patch16_224"
    assert content["label_names"] == ["cat", "dog", "owl"]
    assert (content["num_classes"], content["model_args"]["depth"]) == (3, 2)
    assert "drop_path_rate" not in content["model_args"]
    assert weights["input_size"] == [3, 32, 32]
    assert (weights["mean"], weights["std"]) == ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
    assert (weights["crop_pct"], weights["interpolation"], weights["crop_mode"]) == (0.9, "bicubic", "center")
    assert not {"tag", "license", "hf_hub_id", "url", "origin_url"} & weights.keys()


def test_timm_prepares_images_as_the_run_did(tmp_path: Path) -> None:
    import timm
    from PIL import Image

    from sinkablate.data.transforms import eval_transform

    write_timm(untrained(BackboneConfig(**TINY), COLOR, 3), tmp_path)
    model = timm.create_model(f"local-dir:{tmp_path}")
    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    pixels = torch.randint(0, 256, (50, 70, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    image = Image.fromarray(pixels.numpy())
    torch.testing.assert_close(theirs(image), eval_transform(COLOR)(image), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "says"),
    [
        (BackboneConfig(attention=AttentionConfig(score="sigmoid")), "attention with score=sigmoid"),
        (BackboneConfig(attention=AttentionConfig(sink="learned")), "sink=learned in attention"),
        (
            BackboneConfig(attention=AttentionConfig(gate="headwise", gate_position="value")),
            r"gate on the values \(gate_position=value\)",
        ),
        (BackboneConfig(pathway=PathwayConfig(kind="global")), "global pathway"),
        (BackboneConfig(match_parameters="headwise", layers=(0,)), "model whose MLPs differ in width"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_timm_lacks_is_named(backbone: BackboneConfig, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^format=timm: timm has no {says}.*; use --format hub, which"):
        write_timm(untrained(backbone), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_mechanisms_are_added_to_the_weights_of_a_run_by_way_of_timm(tmp_path: Path) -> None:
    """The file of an export to the hub is refused, and the message names this way."""
    (tmp_path / "hub").mkdir()
    write_hub(untrained(BackboneConfig()), tmp_path / "hub")
    gate = AttentionConfig(gate="headwise", gate_start="identity")
    with pytest.raises(ConfigError, match="export them with --format timm and name local-dir:FOLDER"):
        build_backbone(BackboneConfig(checkpoint=str(tmp_path / "hub" / "model.safetensors"), attention=gate))
    trained = untrained(BackboneConfig())
    write_timm(trained, tmp_path)
    config = BackboneConfig(name=f"local-dir:{tmp_path}", pretrained=True, attention=gate)
    model = build_backbone(config).eval()
    additions = additions_of(model)
    assert additions is not None
    assert additions.names == ("headwise gate",)
    expected = outputs(trained.model, trained)[1]
    torch.testing.assert_close(outputs(model, trained)[1], expected, atol=1e-6, rtol=1e-6)

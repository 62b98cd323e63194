"""Weights from local files: timm's, a pretrained DINOv2, checkpoints of runs, and truncated files."""

import re
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from variants import make, noise, perturbed

from sinkablate.config import AttentionConfig, BackboneConfig
from sinkablate.errors import UserError
from sinkablate.tasks.classify import Classify
from sinkablate.vit.backbone import build_backbone
from sinkablate.vit.checkpoint_files import read_checkpoint

DINOV2 = "vit_small_patch14_dinov2.lvd142m"


def load(
    path: Path,
    *,
    name: str = "vit_tiny_patch16_224",
    num_classes: int = 3,
    img_size: int = 64,
    seed: int = 0,
    **fields: Any,
) -> Any:
    config = BackboneConfig(name=name, checkpoint=str(path), **fields)
    return build_backbone(config, num_classes=num_classes, in_chans=3, img_size=img_size, seed=seed)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A timm ViT-Ti of depth 2 at 64 pixels, written with torch.save."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.manual_seed(0)
    model = perturbed(timm.create_model("vit_tiny_patch16_224", depth=2, img_size=64, num_classes=3))
    torch.save({"state_dict": model.state_dict()}, path)
    return path


def saved(path: Path) -> dict[str, Tensor]:
    return read_checkpoint(str(path)).weights


@pytest.mark.parametrize("form", ["bare.pt", "bare.safetensors", "nested.pth"])
def test_every_file_format_loads(tiny: Path, tmp_path: Path, form: str) -> None:
    path, weights = tmp_path / form, saved(tiny)
    if form.endswith("safetensors"):
        save_file(weights, path)
    else:
        torch.save({"model": {"state_dict": weights}} if "nested" in form else weights, path)
    for num_classes in (3, 5, 0):
        for name, p in load(path, depth=2, num_classes=num_classes).named_parameters():
            if num_classes == 3 or not name.startswith("head."):
                assert torch.equal(p, weights[name]), name


def test_positions_are_resized_to_another_image_size(tiny: Path) -> None:
    model, weights = load(tiny, depth=2, img_size=96), saved(tiny)
    expected = resample_abs_pos_embed(weights["pos_embed"], new_size=[6, 6], old_size=[4, 4], num_prefix_tokens=1)
    torch.testing.assert_close(model.pos_embed.detach(), expected)
    assert torch.equal(model.blocks[1].mlp.fc2.weight, weights["blocks.1.mlp.fc2.weight"])


def test_parameters_missing_from_the_file_are_drawn_by_seed(tiny: Path) -> None:
    fields: dict[str, Any] = {
        "depth": 2,
        "registers": 2,
        "num_classes": 5,
        "attention": AttentionConfig(sink="kv_bias", gate="headwise"),
    }
    one, same, other = (dict(load(tiny, seed=seed, **fields).named_parameters()) for seed in (1, 1, 2))
    assert all(torch.equal(p, same[name]) for name, p in one.items())
    drawn = {name for name, p in one.items() if not torch.equal(p, other[name])}
    assert drawn == {"head.weight", "reg_token"} | {
        f"blocks.{i}.attn.{leaf}" for i in (0, 1) for leaf in ("gate.weight", "core.sink_key", "core.sink_value")
    }


def masked_registers(model: nn.Module, images: Tensor) -> Tensor:
    """Features of CLS and patches when no token can attend to a register."""
    x = model._pos_embed(model.patch_embed(images))
    x = model.norm_pre(x)
    n, registers = x.shape[1], slice(1, 1 + model.num_reg_tokens)
    mask = torch.zeros(n, n)
    mask[:, registers] = -torch.inf
    for block in model.blocks:
        x = block(x, attn_mask=mask)
    return torch.cat((x[:, :1], x[:, 1 + model.num_reg_tokens :]), dim=1)


@pytest.mark.parametrize("positioned", [False, True])
def test_registers_are_added_without_changing_the_features(tiny: Path, positioned: bool) -> None:
    plain = load(tiny, depth=2).eval()
    model = load(tiny, depth=2, registers=3, register_pos_embed=positioned).eval()
    weights, images = saved(tiny), noise(2, 3, 64, 64)
    if positioned:
        assert torch.equal(model.cls_token, weights["cls_token"])
        assert torch.equal(model.pos_embed[:, :1], weights["pos_embed"][:, :1])
    else:
        assert torch.equal(model.cls_token, weights["cls_token"] + weights["pos_embed"][:, :1])
    assert torch.equal(model.pos_embed[:, -16:], weights["pos_embed"][:, 1:])
    torch.testing.assert_close(masked_registers(model, images), masked_registers(plain, images), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(model.forward_features(images)[:, :1], plain.forward_features(images)[:, :1], atol=1e-3)


def test_dinov2_loads_with_and_without_registers(dinov2: Path) -> None:
    weights = {name: p.float() for name, p in load_file(dinov2).items()}
    images = noise(1, 3, 70, 70)
    timms = timm.create_model(DINOV2, num_classes=0, img_size=518)
    timms.load_state_dict(weights)
    timms.set_input_size(img_size=70)
    plain = load(dinov2, name=DINOV2, num_classes=0, img_size=70).eval()
    assert torch.equal(plain.forward_features(images), timms.eval().forward_features(images))
    model = load(dinov2, name=DINOV2, num_classes=7, img_size=70, registers=4, seed=5).eval()
    assert torch.equal(model.cls_token, weights["cls_token"] + weights["pos_embed"][:, :1])
    assert torch.equal(model.pos_embed, plain.pos_embed[:, 1:])
    torch.testing.assert_close(masked_registers(model, images), masked_registers(plain, images), atol=2e-3, rtol=1e-3)
    assert model.head.weight.shape == (7, 384)
    assert float(model.head.weight.detach().std()) == pytest.approx(0.02, rel=0.1)


def test_a_model_with_registers_keeps_them(tmp_path: Path) -> None:
    path = tmp_path / "reg4.pt"
    name = "vit_small_patch14_reg4_dinov2"
    torch.save(timm.create_model(name, depth=1, img_size=56, num_classes=0).state_dict(), path)
    assert load(path, name=name, depth=1, img_size=56).num_reg_tokens == 4
    with pytest.raises(UserError, match=r"registers=2: .* come with 4 registers, whose number cannot be changed"):
        load(path, name=name, depth=1, img_size=56, registers=2)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("share", [0.0001, 0.3, 0.9, 0.9999])
def test_a_truncated_file_is_refused_and_named(tiny: Path, tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cut.{suffix}"
    save_file(saved(tiny), path) if suffix == "safetensors" else torch.save(saved(tiny), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=re.escape(f"checkpoint={path}: truncated")):
        load(path, depth=2)


@pytest.mark.parametrize(
    "fields",
    [
        {"depth": 3},
        {"depth": 1},
        {"depth": 3, "num_classes": 5},
        {"depth": 2, "embed_dim": 96},
        {"depth": 2, "mlp_ratio": 2.0},
        {"depth": 2, "init_values": 1e-5},
        {"depth": 2, "qkv_bias": False},
        {"depth": 2, "name": "vit_small_patch14_dinov2"},
    ],
    ids=str,
)
def test_weights_of_another_shape_are_refused(tiny: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=re.escape(f"checkpoint={tiny} does not fit")) as caught:
        load(tiny, **fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("key", "value"), [("match_parameters", "headwise"), ("fixed_sincos", True)])
def test_variants_that_pretrained_weights_do_not_fit_are_refused(tiny: Path, key: str, value: Any) -> None:
    for source in ({"checkpoint": str(tiny)}, {"pretrained": True}):
        with pytest.raises(UserError, match=rf"^{key}={str(value).lower()} .*start from random weights"):
            build_backbone(BackboneConfig(**{key: value}, **source))


VARIANT = BackboneConfig(
    depth=1, embed_dim=40, patch_size=7, registers=2, attention=AttentionConfig(sink="learned", gate="elementwise")
)


@pytest.fixture(scope="module")
def own_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Classify]:
    """A Lightning checkpoint of a classification task, and the task."""
    task = Classify(backbone=VARIANT, seed=3)
    perturbed(task.backbone)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, barebones=True)
    trainer.strategy.connect(task)
    path = tmp_path_factory.mktemp("run") / "last.ckpt"
    trainer.save_checkpoint(path)
    return path, task


@pytest.mark.parametrize("num_classes", [10, 4, 0])
def test_checkpoints_of_runs_initialize_a_backbone(own_run: tuple[Path, Classify], num_classes: int) -> None:
    """Everything but a head of another size, which is drawn by seed."""
    path, task = own_run
    fields = {"num_classes": num_classes, "in_chans": 1, "img_size": 28, "seed": 8}
    config = BackboneConfig(**{**vars(VARIANT), "checkpoint": str(path)})
    model, fresh = build_backbone(config, **fields).state_dict(), build_backbone(VARIANT, **fields).state_dict()
    trained = task.backbone.state_dict()
    for name, p in model.items():
        expected = fresh if name.startswith("head.") and num_classes != 10 else trained
        assert torch.equal(p, expected[name]), name


def test_checkpoints_of_another_variant_are_refused(own_run: tuple[Path, Classify]) -> None:
    path, _ = own_run
    with pytest.raises(UserError, match=re.escape(f"checkpoint={path} belongs to another model")):
        make(depth=1, checkpoint=str(path))

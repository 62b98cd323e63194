"""The hub format: every variant makes the round trip, and damaged folders are refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exporting import COLOR, GRAY, SHIPPED, images_for, outputs, shipped, untrained
from safetensors import safe_open
from timm.layers import resample_abs_pos_embed

import sinkablate as sa
from sinkablate.config import AttentionConfig, BackboneConfig
from sinkablate.errors import UserError
from sinkablate.export.hub_format import write_hub
from sinkablate.vit.backbone import build_backbone
from sinkablate.vit.hub_folder import exported_model, resolved
from sinkablate.vit.positions import Resampling, record_of

GATED = BackboneConfig(depth=1, registers=2, attention=AttentionConfig(gate="headwise", sink="learned"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_hub(untrained(GATED), tmp_path)
    return tmp_path


def change(folder: Path, *keys: str, value: Any) -> None:
    """Change one value of `config.json`."""
    content = node = json.loads((folder / "config.json").read_text())
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize("config", SHIPPED)
def test_every_shipped_config_makes_the_round_trip(config: str, tmp_path: Path) -> None:
    backbone = shipped(SHIPPED[config])
    trained = untrained(backbone, images_for(backbone))
    write_hub(trained, tmp_path)
    again = sa.create_model(f"local-dir:{tmp_path}")
    expected = trained.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state_dict().items())
    assert torch.equal(outputs(again, trained)[1], outputs(trained.model, trained)[1])
    assert {n for n, p in again.named_parameters() if p.requires_grad} == {
        n for n, p in trained.model.named_parameters() if p.requires_grad
    }


def test_the_weights_are_a_plain_state_dict(folder: Path) -> None:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "sinkablate": sa.__version__}
        assert "blocks.0.attn.qkv.weight" in file.keys()  # noqa: SIM118  # not a dict


def test_the_architecture_can_be_created_without_the_weights(folder: Path) -> None:
    name = f"local-dir:{folder}"
    drawn = sa.create_model(name, pretrained=False, seed=3)
    expected = build_backbone(GATED, seed=3).state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in drawn.state_dict().items())


def test_another_head_is_drawn_and_the_rest_is_loaded(folder: Path) -> None:
    trained, name = untrained(GATED), f"local-dir:{folder}"
    model = sa.create_model(name, num_classes=3, drop_path_rate=0.2)
    assert model.head.weight.shape == (3, 64)
    assert torch.equal(model.reg_token, trained.model.reg_token)
    assert sa.create_model(name, num_classes=0)(torch.zeros(1, 1, 28, 28)).shape == (1, 64)


def test_the_kernel_may_differ_from_that_of_the_exported_model(folder: Path) -> None:
    model = sa.create_model(f"local-dir:{folder}", kernel="explicit")
    assert model.blocks[0].attn.config == replace(GATED.attention, kernel="explicit")


def test_positions_are_resampled_for_another_image_size(folder: Path) -> None:
    trained, name = untrained(GATED), f"local-dir:{folder}"
    model = sa.create_model(name, img_size=42)
    expected = resample_abs_pos_embed(trained.model.pos_embed, [6, 6], num_prefix_tokens=0)
    torch.testing.assert_close(model.pos_embed, expected)
    assert model.position_record.resampling == Resampling(method="timm", old=(4, 4), new=(6, 6))
    assert model.sinkablate_transform.transforms[1].size == (42, 42)
    assert sa.create_model(name, img_size=[28, 42], pos_embed_interpolation="dinov2").pos_embed.shape == (1, 24, 64)


def test_models_of_rectangles_make_the_round_trip(tmp_path: Path) -> None:
    trained = untrained(GATED, replace(GRAY, size=(28, 42)))
    write_hub(trained, tmp_path)
    model = sa.create_model(f"local-dir:{tmp_path}")
    assert torch.equal(outputs(model, trained)[1], outputs(trained.model, trained)[1])


@pytest.mark.parametrize("size", [(56, 56), (42, 28), (14, 84)])
def test_positions_of_rectangles_are_resampled_from_their_own_grid(size: tuple[int, int], tmp_path: Path) -> None:
    """The last two sizes have the number of patches of the exported model."""
    trained, new = untrained(GATED, replace(GRAY, size=(28, 42))), (size[0] // 7, size[1] // 7)
    write_hub(trained, tmp_path)
    model: Any = sa.create_model(f"local-dir:{tmp_path}", img_size=size)
    expected = resample_abs_pos_embed(trained.model.pos_embed, list(new), [4, 6], num_prefix_tokens=0)
    torch.testing.assert_close(model.pos_embed, expected)
    assert record_of(model).resampling == Resampling(method="timm", old=(4, 6), new=new)


def test_models_of_other_families_make_the_round_trip(tmp_path: Path) -> None:
    """They have no mechanisms, but weights like all others."""
    trained = untrained(BackboneConfig(name="deit_tiny_distilled_patch16_224", depth=1), COLOR)
    write_hub(trained, tmp_path)
    model = sa.create_model(f"local-dir:{tmp_path}")
    assert torch.equal(outputs(model, trained)[1], outputs(trained.model, trained)[1])


def test_the_variant_takes_the_place_of_the_name(folder: Path) -> None:
    """So a run that starts from an export can be read after the export is gone."""
    config = BackboneConfig(name=f"local-dir:{folder}", pretrained=True, drop_rate=0.1, img_size=28)
    assert resolved(config) == replace(GATED, checkpoint=str(folder / "model.safetensors"), drop_rate=0.1, img_size=28)
    assert resolved(replace(config, pretrained=False)).checkpoint is None
    assert resolved(GATED) is GATED


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"registers": 4}, r"^registers=4: local-dir:.* is exported with its own variant"),
        ({"depth": 2}, "^depth=2: "),
        ({"gate": "elementwise"}, r"^attention=\{.*'gate': 'elementwise'"),
        ({"pathway": "global"}, "^pathway="),
    ],
)
def test_the_variant_cannot_be_changed(folder: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        sa.create_model(f"local-dir:{folder}", **options)
    same = sa.create_model(f"local-dir:{folder}", depth=1, registers=2, gate="headwise", sink="learned")
    assert same.num_reg_tokens == 2


@pytest.mark.parametrize(
    ("keys", "value", "says"),
    [
        (("sinkablate", "backbone", "depth"), "two", "damaged, or not written by export"),
        (("sinkablate", "backbone", "depth"), -1, r"sinkablate\.backbone\.depth must be positive, got -1"),
        (("sinkablate", "backbone", "attention", "score"), "cosine", "score=cosine: unknown score"),
        (("sinkablate", "backbone", "attention", "heat"), 2, "backbone.attention.heat is unknown to this version"),
        (("sinkablate", "image", "std"), [0.0], "image.std must be positive"),
        (("sinkablate", "num_classes"), "ten", "num_classes"),
        (("sinkablate", "num_classes"), None, "num_classes"),
        (("sinkablate", "image"), 3, "damaged, or not written by export"),
        (("sinkablate",), [], "damaged, or not written by export"),
        (("sinkablate", "version"), None, None),
    ],
)
def test_a_damaged_description_is_refused(folder: Path, keys: tuple[str, ...], value: Any, says: str | None) -> None:
    change(folder, *keys, value=value)
    if says is None:
        assert exported_model(f"local-dir:{folder}") is not None
        return
    with pytest.raises(UserError, match=says) as refusal:
        exported_model(f"local-dir:{folder}")
    assert str(refusal.value).startswith(f"name=local-dir:{folder}: config.json: ")


def test_weights_that_are_missing_or_of_another_model_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    change(folder, "sinkablate", "backbone", "embed_dim", value=128)
    with pytest.raises(UserError, match="belongs to another model"):
        sa.create_model(f"local-dir:{folder}")
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match="truncated"):
        sa.create_model(f"local-dir:{folder}")
    weights.unlink()
    with pytest.raises(UserError, match=r"contains no model.safetensors; export the run again"):
        sa.create_model(f"local-dir:{folder}")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"architecture": "vit_tiny_patch16_224"}', "\xff"])
def test_other_folders_are_not_exported_models(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    assert exported_model(f"local-dir:{tmp_path}") is None
    assert exported_model(f"local-dir:{tmp_path / 'missing'}") is None
    assert exported_model("vit_mini") is None


def test_a_cached_repository_is_read_without_a_network(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layout of huggingface_hub's cache."""
    cache, revision = tmp_path / "cache", "0" * 40
    snapshot = cache / "models--someone--model" / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).write_bytes((folder / name).read_bytes())
    (refs := cache / "models--someone--model" / "refs").mkdir()
    (refs / "main").write_text(revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    for name in ("hf-hub:someone/model", f"hf-hub:someone/model@{revision}"):
        assert torch.equal(sa.create_model(name).reg_token, untrained(GATED).model.reg_token)
    assert exported_model("hf-hub:someone/other") is None

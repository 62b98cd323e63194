"""Vision models of transformers: results equal those of timm's models, or the model is refused."""

import json
from typing import Any

import numpy as np
import pytest
import timm
import torch
from families import hook_count
from PIL import Image
from tapping import tapped
from variants import noise, perturbed

transformers = pytest.importorskip("transformers")

from hugging_face import MODELS, SIZE, copy_weights, untrained  # noqa: E402

from sinkablate.config import ThresholdConfig  # noqa: E402
from sinkablate.diagnose.hugging_face import load_hugging_face  # noqa: E402
from sinkablate.diagnostics.probe import probe  # noqa: E402
from sinkablate.diagnostics.records import Records  # noqa: E402
from sinkablate.diagnostics.tap import MAX_REBUILD_ERROR  # noqa: E402
from sinkablate.errors import UserError  # noqa: E402

SHARED = {
    "num_classes": 0,
    "depth": 2,
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 48,
    "num_heads": 3,
    "mlp_ratio": 2,
}
PAIRS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ViT": ("vit_tiny_patch16_224", {}, {"layer_norm_eps": 1e-6}),
    "Dinov2": ("vit_small_patch14_dinov2", {"init_values": 1.0}, {"layer_norm_eps": 1e-6}),
    "Dinov2WithRegisters": (
        "vit_small_patch14_reg4_dinov2",
        {"init_values": 1.0},
        {"layer_norm_eps": 1e-6, "num_register_tokens": 4},
    ),
    "CLIPVision": ("vit_base_patch16_clip_224", {}, {"hidden_act": "gelu"}),
    "SiglipVision": ("vit_base_patch16_siglip_224", {}, {"hidden_act": "gelu", "layer_norm_eps": 1e-6}),
}
"""Name in transformers -> name in timm, and the options with which the two compute the same."""


def sharp(name: str, **fields: Any) -> Any:
    """A small timm model with random weights and concentrated attention."""
    torch.manual_seed(0)
    model = perturbed(timm.create_model(name, **{**SHARED, **fields})).eval()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight[: 2 * SHARED["embed_dim"]] *= 5
    return model


def measured(model: Any, images: torch.Tensor) -> Records:
    """Records of all blocks; the rebuild was exact."""
    records, error = probe(model, images, np.arange(len(images)), ThresholdConfig())
    assert error < 1e-5
    return records


@pytest.mark.parametrize("name", MODELS)
def test_every_family_is_captured_once_per_block(name: str) -> None:
    model, layout, images = untrained(name), MODELS[name][1], noise(2, 3, 32, 32)
    with torch.no_grad():
        plain = model(pixel_values=images, output_hidden_states=True)
    before = hook_count(model)  # transformers keeps the hooks that record its hidden states
    views, outputs, errors = tapped(model, images)
    assert [view.index for view in views] == [0, 1] == list(errors)
    assert max(errors.values()) < 1e-5 < MAX_REBUILD_ERROR
    for view in views:
        assert view.layout == layout
        assert view.layout.num_tokens == view.q.shape[2]
        assert view.weights().std(-1).max() > 0.01, "uniform rows would prove nothing"
    assert torch.equal(outputs[0], plain.hidden_states[1])
    assert hook_count(model) == before


@pytest.mark.parametrize("name", ["ViT", "Dinov2WithRegisters", "CLIPVision", "SiglipVision", "DINOv3ViT"])
def test_weights_equal_those_of_the_explicit_path(name: str) -> None:
    images = noise(2, 3, 32, 32)
    with torch.no_grad():
        explicit = untrained(name, attention="eager")(pixel_values=images, output_attentions=True).attentions
    for view, weights in zip(tapped(untrained(name), images)[0], explicit, strict=True):
        torch.testing.assert_close(view.weights(), weights, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", PAIRS)
def test_results_equal_timms_on_the_same_weights(name: str) -> None:
    theirs, ours, fields = PAIRS[name]
    source, target = sharp(theirs, **ours), untrained(name, lively=False, **fields)
    copy_weights(source, target)
    images = noise(3, 3, 32, 32)
    expected, actual = measured(source, images), measured(target, images)
    assert actual.layout == expected.layout
    assert expected.heads["mass"].max() > 0.3
    assert expected.heads["stable_rank"].max() > 1.5
    for group in ("heads", "mass", "tokens"):
        before, after = getattr(expected, group), getattr(actual, group)
        assert before.keys() == after.keys()
        for quantity, values in before.items():
            np.testing.assert_allclose(after[quantity], values, rtol=2e-5, atol=2e-5, err_msg=quantity)
    np.testing.assert_allclose(actual.norms, expected.norms, rtol=1e-5)
    np.testing.assert_allclose(actual.payload_sum, expected.payload_sum, rtol=1e-4, atol=1e-4)


def test_results_equal_timms_on_pretrained_weights(dinov2: Any) -> None:
    from safetensors.torch import load_file

    source = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=518)
    source.load_state_dict(load_file(dinov2))
    source.set_input_size((112, 112))
    target = untrained(
        "Dinov2",
        lively=False,
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        mlp_ratio=4,
        image_size=112,
        patch_size=14,
        layer_norm_eps=1e-6,
    )
    copy_weights(source, target)
    images = noise(2, 3, 112, 112)
    expected, actual = measured(source.eval(), images), measured(target, images)
    for quantity in ("mass", "routed_frac", "ratio_out", "ratio_head", "stable_rank", "rel_update", "sink_idx"):
        np.testing.assert_allclose(
            actual.heads[quantity], expected.heads[quantity], rtol=1e-4, atol=1e-5, err_msg=quantity
        )
    np.testing.assert_allclose(actual.norms, expected.norms, rtol=1e-4)


def test_eager_attention_is_refused_and_named() -> None:
    with pytest.raises(UserError, match=r"ViTAttention cannot be measured: block 0 made 0 calls"):
        tapped(untrained("ViT", attention="eager"), noise(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("name", "fields", "says"),
    [
        ("Swin", {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2}, "SwinModel"),
        ("ConvNext", {"hidden_sizes": [8, 8], "depths": [1, 1], "num_stages": 2}, "ConvNextModel"),
        ("ViTMAE", {}, "ViTMAEModel cannot be measured, because the positions"),
    ],
)
def test_families_that_cannot_be_measured_are_refused_and_named(name: str, fields: dict[str, Any], says: str) -> None:
    config = getattr(transformers, f"{name}Config")(**({"image_size": 32} if fields else SIZE), **fields)
    attention = "eager" if name == "ConvNext" else "sdpa"
    model = getattr(transformers, f"{name}Model")._from_config(config, attn_implementation=attention).eval()
    with pytest.raises(UserError, match=says):
        tapped(model, noise(1, 3, 32, 32))
    assert hook_count(model) == 0


def test_preprocessing_follows_the_models_folder(tmp_path):
    """Size, crop, resampling, mean and std of preprocessor_config.json equal those of the library's processor."""
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14
    )
    transformers.Dinov2Model(config).save_pretrained(tmp_path)
    processor = transformers.BitImageProcessor(
        size={"shortest_edge": 40},
        crop_size={"height": 28, "width": 28},
        resample=2,
        image_mean=[0.1, 0.2, 0.3],
        image_std=[0.4, 0.5, 0.6],
    )
    processor.save_pretrained(tmp_path)
    subject = load_hugging_face(str(tmp_path))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8))
    torch.testing.assert_close(
        subject.transform(picture), processor(images=picture, return_tensors="pt")["pixel_values"][0], atol=0.02, rtol=0
    )
    views, _, _ = tapped(subject.model, subject.transform(picture)[None])
    assert views[0].layout.num_patches == 4, "the model's own images would have 16 patches"
    preprocessing = subject.description["preprocessing"]
    assert preprocessing["input_size"] == [3, 28, 28]
    positions = subject.description["position_embedding"]
    assert (positions["method"], positions["from"], positions["to"]) == ("transformers", [4, 4], [2, 2])
    assert (preprocessing["image_mean"], preprocessing["source"]) == ([0.1, 0.2, 0.3], "preprocessor_config.json")
    stored = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stored | {"do_normalize": False}))
    assert load_hugging_face(str(tmp_path)).description["preprocessing"] != preprocessing
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stored | {"do_center_crop": False}))
    with pytest.raises(UserError, match=r"preprocessor_config\.json produces images of shape"):
        load_hugging_face(str(tmp_path))

"""Models that read images of a different size from the one they were built for."""

import pytest
import timm
import torch
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel
from variants import noise

from sinkablate.config import BackboneConfig, ConfigError, PathwayConfig
from sinkablate.vit.backbone import build_backbone
from sinkablate.vit.inputs import input_size_of, patch_size_of
from sinkablate.vit.resizing import UNCHANGED, resized


def test_the_position_embedding_is_resampled_as_timm_does() -> None:
    config = BackboneConfig(registers=2, pathway=PathwayConfig(kind="global"))
    model = build_backbone(config, img_size=28).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    larger, positions = resized(model, 56)
    assert positions.startswith("resampled by timm's set_input_size from 28 to 56 pixels")
    expected = timm.layers.resample_abs_pos_embed(model.pos_embed, (8, 8), (4, 4), num_prefix_tokens=1)
    if model.no_embed_class:
        expected = timm.layers.resample_abs_pos_embed(model.pos_embed, (8, 8), (4, 4), num_prefix_tokens=0)
    torch.testing.assert_close(larger.pos_embed, expected)
    assert larger.forward_features(noise(2, 1, 56, 56)).shape == (2, 3 + 64, 64)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_model_of_the_right_size_is_not_copied() -> None:
    model = build_backbone(BackboneConfig(), img_size=56)
    assert (input_size_of(model), patch_size_of(model)) == ((56, 56), 7)
    assert resized(model, 56) == (model, UNCHANGED)


def test_a_size_without_whole_patches_is_refused_with_the_next_one() -> None:
    with pytest.raises(ConfigError, match=r"size=60: does not divide into patches of 7 pixels; .* such as 56 or 63"):
        resized(build_backbone(BackboneConfig()), 60)


def test_transformers_interpolates_in_the_forward_pass() -> None:
    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32)
    model = ViTModel(config, add_pooling_layer=False).eval()
    images = noise(1, 3, 64, 64)
    larger, positions = resized(model, 64)
    assert "interpolate_pos_encoding" in positions
    with torch.no_grad():
        expected = model(pixel_values=images, interpolate_pos_encoding=True).last_hidden_state
        torch.testing.assert_close(larger(pixel_values=images).last_hidden_state, expected)
    with pytest.raises(ValueError, match="doesn't match"):
        model(pixel_values=images)  # the original still refuses


def test_a_model_that_adapts_itself_is_used_as_it_is() -> None:
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=28, patch_size=7
    )
    larger, positions = resized(Dinov2Model(config).eval(), 56)
    assert positions == "adapted by the model itself from 28 to 56 pixels, in every forward pass"
    with torch.no_grad():
        assert larger(pixel_values=noise(1, 3, 56, 56)).last_hidden_state.shape == (1, 65, 16)

"""Position embeddings on another grid of patches, compared with a direct computation in float64."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from variants import noise, perturbed

from sinkablate.config import BackboneConfig, ConfigError
from sinkablate.vit.backbone import build_backbone
from sinkablate.vit.positions import INTERPOLATIONS, Resampling, record_of
from sinkablate.vit.resizing import resized

SMALL = {"name": "vit_small_patch14_dinov2", "embed_dim": 24, "depth": 1, "num_heads": 2}
NATIVE = 37
"""Rows and columns of the grid of DINOv2's weights."""


def cubic(distance: float) -> float:
    """The cubic convolution kernel with a = -0.75, which PyTorch uses."""
    x, a = abs(distance), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def weights_1d(old: int, new: int, offset: float) -> NDArray[np.float64]:
    """Weights (new, old) of an interpolation without antialiasing; positions beyond the edge repeat it."""
    matrix = np.zeros((new, old))
    for row in range(new):
        center = (row + 0.5) * old / (new + offset) - 0.5
        for tap in range(math.floor(center) - 1, math.floor(center) + 3):
            matrix[row, min(max(tap, 0), old - 1)] += cubic(center - tap)
    return matrix


@pytest.mark.parametrize("new", [(4, 6), (37, 30), (50, 41)])
@pytest.mark.parametrize("method", ["dinov2", "transformers"])
def test_interpolation_without_antialiasing_equals_the_definition(method: str, new: tuple[int, int]) -> None:
    positions = torch.randn(1, 1 + NATIVE**2, 3, generator=torch.Generator().manual_seed(0))
    how = INTERPOLATIONS[method]
    rows = how.resample(positions, (NATIVE, NATIVE), new)
    grid = positions[0, 1:].double().view(NATIVE, NATIVE, 3).numpy()
    down, across = (weights_1d(NATIVE, size, how.offset) for size in new)
    expected = np.einsum("ry,cx,yxd->rcd", down, across, grid)
    assert rows.shape == (1, 1 + new[0] * new[1], 3)
    assert torch.equal(rows[:, 0], positions[:, 0])
    np.testing.assert_allclose(rows[0, 1:].view(*new, 3).numpy(), expected, atol=2e-5)


def test_the_interpolation_named_timm_is_that_of_timm() -> None:
    positions = torch.randn(1, 1 + NATIVE**2, 3, generator=torch.Generator().manual_seed(0))
    expected = resample_abs_pos_embed(positions, new_size=[4, 6], old_size=[NATIVE, NATIVE], num_prefix_tokens=1)
    assert torch.equal(INTERPOLATIONS["timm"].resample(positions, (NATIVE, NATIVE), (4, 6)), expected)


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, torch.Tensor]]:
    """A small DINOv2 with random weights in a file, and these weights."""
    name, shape = SMALL["name"], {key: value for key, value in SMALL.items() if key != "name"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(str(name), num_classes=0, **shape)
    path = tmp_path_factory.mktemp("dinov2") / "dinov2.safetensors"
    save_file(model.state_dict(), path)
    return str(path), model.state_dict()


def built(path: str, size: Any, **fields: Any) -> Any:
    config = BackboneConfig(**SMALL, checkpoint=path, **fields)
    return build_backbone(config, num_classes=0, in_chans=3, img_size=size)


@pytest.mark.parametrize("method", ["timm", "dinov2"])
def test_weights_are_resampled_as_chosen_and_the_method_is_recorded(method: Any, dinov2: Any) -> None:
    path, weights = dinov2
    model = built(path, (56, 84), pos_embed_interpolation=method)
    expected = INTERPOLATIONS[method].resample(weights["pos_embed"], (NATIVE, NATIVE), (4, 6))
    assert torch.equal(model.pos_embed, expected)
    assert record_of(model).resampling == Resampling(method=method, old=(NATIVE, NATIVE), new=(4, 6))
    assert model(noise(1, 3, 56, 84)).shape == (1, 24)


def test_the_methods_differ_and_registers_keep_the_choice(dinov2: Any) -> None:
    path, weights = dinov2
    timms, official = (built(path, 56, pos_embed_interpolation=method, registers=2) for method in ("timm", "dinov2"))
    assert (timms.pos_embed - official.pos_embed).abs().max() > 1e-3
    expected = INTERPOLATIONS["dinov2"].resample(weights["pos_embed"], (NATIVE, NATIVE), (4, 4))
    assert torch.equal(official.pos_embed, expected[:, 1:])  # the row of CLS is part of its token


def test_weights_on_their_own_grid_are_not_resampled(dinov2: Any) -> None:
    path, weights = dinov2
    model = built(path, NATIVE * 14, pos_embed_interpolation="dinov2")
    assert torch.equal(model.pos_embed, weights["pos_embed"])
    assert record_of(model).resampling is None


def test_a_model_is_resized_later_with_the_method_that_it_was_built_with(dinov2: Any) -> None:
    path, weights = dinov2
    larger, positions = resized(built(path, NATIVE * 14, pos_embed_interpolation="dinov2"), (56, 84))
    expected = INTERPOLATIONS["dinov2"].resample(weights["pos_embed"], (NATIVE, NATIVE), (4, 6))
    assert torch.equal(larger.pos_embed, expected)
    assert positions == "resampled as dinov2 does from 518 to 56 x 84 pixels"


def test_the_sentence_names_grids_and_settings() -> None:
    record = Resampling(method="dinov2", old=(37, 37), new=(4, 6))
    sentence = record.sentence
    assert sentence == (
        "position embedding resampled from 37 x 37 to 4 x 6 patches (dinov2: bicubic, antialias off, offset 0.1)"
    )


def test_a_grid_with_the_same_number_of_patches_is_resampled_as_well(tmp_path: Path) -> None:
    source: Any = build_backbone(BackboneConfig(), img_size=28)
    larger, _ = resized(source, (14, 56))
    expected = resample_abs_pos_embed(source.pos_embed, new_size=[2, 8], old_size=[4, 4], num_prefix_tokens=1)
    assert torch.equal(larger.pos_embed, expected)
    assert not torch.equal(larger.pos_embed, source.pos_embed)


@pytest.mark.parametrize("method", ["timm", "dinov2"])
def test_a_file_of_vit_mini_is_resampled_as_files_of_other_models(method: Any, tmp_path: Path) -> None:
    """The model is one of this package, and is resampled by timm as well."""
    weights = perturbed(build_backbone(BackboneConfig())).state_dict()
    torch.save(weights, tmp_path / "mini.pt")
    config = BackboneConfig(checkpoint=str(tmp_path / "mini.pt"), pos_embed_interpolation=method)
    model: Any = build_backbone(config, img_size=(28, 56))
    assert torch.equal(model.pos_embed, INTERPOLATIONS[method].resample(weights["pos_embed"], (4, 4), (4, 8)))
    assert record_of(model).resampling == Resampling(method=method, old=(4, 4), new=(4, 8))


def test_a_model_without_a_learned_position_embedding_is_refused() -> None:
    model: Any = build_backbone(
        BackboneConfig(name="vit_small_patch16_dinov3", depth=1, embed_dim=48, num_heads=3), in_chans=3, img_size=32
    )
    assert resized(model, (32, 64)).model(noise(1, 3, 32, 64)).shape == (1, 10)
    config = BackboneConfig(
        name="vit_small_patch16_dinov3", depth=1, embed_dim=48, num_heads=3, pos_embed_interpolation="dinov2"
    )
    with pytest.raises(ConfigError, match=r"^pos_embed_interpolation=dinov2: .* has no learned position embedding"):
        resized(build_backbone(config, in_chans=3, img_size=32), 64)

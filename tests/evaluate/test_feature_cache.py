"""Features are read from the right tokens, cached once, and survive interruptions, full disks and bad images."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import tree
from torch import Tensor
from variants import SMALL, make, noise, perturbed

from sinkablate.config import AttentionConfig
from sinkablate.data.errors import DataError
from sinkablate.errors import UserError
from sinkablate.evaluate import cache as cache_module
from sinkablate.evaluate.backbones import Backbone, RawPixels, make_backbone, model_digest
from sinkablate.evaluate.cache import CachedFeatures, FeatureCache, chunk_rows
from sinkablate.evaluate.features import READINGS
from sinkablate.evaluate.images import PreparedImages
from sinkablate.evaluate.rows import BackboneName

IMAGES = noise(22, 1, 28, 28)


def prepared(load: Callable[[int], Tensor] = lambda number: IMAGES[number]) -> PreparedImages:
    return PreparedImages(count=22, load=load, name=lambda number: f"image {number}", identity={"images": "noise"})


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    model = perturbed(make(registers=2)).eval()
    return make_backbone("model", model, lambda seed: make(seed=seed).eval(), torch.device("cpu"))


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "CHUNK_ROWS", 4)


def get(folder: Path, backbone: Backbone, images: PreparedImages | None = None, reading: str = "patches") -> Any:
    return FeatureCache(folder).get(reading, backbone, images or prepared(), batch_size=3)


@torch.no_grad()
def test_readings_are_the_tokens_of_the_last_block(backbone: Backbone) -> None:
    model: Any = backbone.model
    tokens = model.forward_features(IMAGES)
    torch.testing.assert_close(READINGS["patches"](model, IMAGES), tokens[:, 3:])
    torch.testing.assert_close(READINGS["pooled"](model, IMAGES)[:, 0], tokens[:, 0])
    torch.testing.assert_close(READINGS["pooled"](model, IMAGES)[:, 1], tokens[:, 3:].mean(dim=1))
    inputs: list[Tensor] = []
    handle = model.blocks[-1].attn.qkv.register_forward_hook(lambda _, _args, output: inputs.append(output))
    model(IMAGES)
    handle.remove()
    for name, part in zip(("queries", "keys", "values"), inputs[0].chunk(3, dim=-1), strict=True):
        torch.testing.assert_close(READINGS[name](model, IMAGES), part[:, 3:])


@torch.no_grad()
def test_the_norm_of_pooled_tokens_is_applied_to_each_token() -> None:
    model = perturbed(make(global_pool="avg", class_token=False)).eval()
    before = model.forward_features(IMAGES)
    torch.testing.assert_close(READINGS["patches"](model, IMAGES), model.fc_norm(before))
    assert READINGS["pooled"](model, IMAGES).shape == (22, 1, SMALL["embed_dim"])


def test_raw_pixels_are_those_of_each_patch() -> None:
    rows = READINGS["patches"](RawPixels(7), IMAGES)
    assert rows.shape == (22, 16, 49)
    assert torch.equal(rows[5, 6].view(7, 7), IMAGES[5, 0, 7:14, 14:21])
    assert torch.equal(READINGS["pooled"](RawPixels(7), IMAGES)[3, 0].view(28, 28), IMAGES[3, 0])


def test_the_cache_returns_the_features_in_half_precision(backbone: Backbone, tmp_path: Path) -> None:
    features: CachedFeatures = get(tmp_path, backbone)
    with torch.no_grad():
        expected = READINGS["patches"](backbone.model, IMAGES).half()
    torch.testing.assert_close(features.all(), expected, rtol=2e-3, atol=2e-3)
    chosen = torch.tensor([21, 3, 3, 0, 8])
    assert torch.equal(features.take(chosen), features.all()[chosen])
    assert [path.name for path in sorted(features.folder.glob("*.npy"))] == [
        f"{first:06d}-{min(first + 4, 22):06d}.npy" for first in range(0, 22, 4)
    ]


def test_chunks_are_limited_by_rows_and_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert chunk_rows((2, 64)) == 256
    assert chunk_rows((1296, 1024)) == 16  # 2.65 MB per image of 504 pixels
    assert chunk_rows((2**27,)) == 1


def test_features_that_are_cached_are_not_computed_again(backbone: Backbone, tmp_path: Path) -> None:
    get(tmp_path, backbone)

    def refuse(_: int) -> Tensor:
        raise AssertionError("the image was read again")

    get(tmp_path, backbone, prepared(refuse))


@pytest.mark.parametrize("number", [0, 4, 13])
def test_an_interrupted_extraction_resumes_with_the_same_bytes(number: int, backbone: Backbone, tmp_path: Path) -> None:
    def interrupt(index: int) -> Tensor:
        if index == number:
            raise KeyboardInterrupt
        return IMAGES[index]

    get(tmp_path / "without", backbone)
    with pytest.raises(KeyboardInterrupt):
        get(tmp_path / "with", backbone, prepared(interrupt))
    finished = tree(tmp_path / "with")
    assert sum(name.endswith(".npy") for name in finished) <= number // 4
    get(tmp_path / "with", backbone)
    assert tree(tmp_path / "with") == tree(tmp_path / "without") | finished


def test_an_image_that_cannot_be_read_is_named(backbone: Backbone, tmp_path: Path) -> None:
    def fail(index: int) -> Tensor:
        if index == 9:
            raise DataError("photos/9.png: the file is empty", "empty file")
        return IMAGES[index]

    with pytest.raises(UserError, match=r"photos/9\.png: the file is empty"):
        get(tmp_path, backbone, prepared(fail))


@pytest.mark.parametrize(("value", "name"), [(float("nan"), "model"), (float("nan"), "pixels"), (1e30, "pixels")])
def test_features_that_are_not_finite_are_refused_with_the_name_of_the_image(
    value: float, name: BackboneName, backbone: Backbone, tmp_path: Path
) -> None:
    images = IMAGES.clone()
    images[7, 0, 3, 3] = value
    chosen = make_backbone(name, backbone.model, lambda seed: make(seed=seed), torch.device("cpu"))
    with pytest.raises(UserError, match="image 7: its features are NaN, or too large"):
        get(tmp_path, chosen, prepared(lambda number: images[number]), "pooled")


def test_a_full_disk_loses_no_finished_chunk(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, saved = np.save, []

    def full(file: Any, rows: Any) -> None:
        if len(saved) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        saved.append(rows)
        save(file, rows)

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(UserError, match="cannot be written: No space left on device; finished features are kept"):
        get(tmp_path / "with", backbone)
    monkeypatch.setattr(np, "save", save)
    assert {path.name for path in tmp_path.glob("with/*/*")} == {
        "features.json",
        "000000-000004.npy",
        "000004-000008.npy",
    }
    get(tmp_path / "with", backbone)
    get(tmp_path / "without", backbone)
    assert tree(tmp_path / "with") == tree(tmp_path / "without")


def test_a_damaged_chunk_is_named(backbone: Backbone, tmp_path: Path) -> None:
    features = get(tmp_path, backbone)
    path = features.path((4, 8))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match=r"000004-000008\.npy: damaged"):
        get(tmp_path, backbone).all()


def test_the_key_depends_on_weights_structure_and_images() -> None:
    models = [
        make(),
        make(seed=1),
        make(num_heads=2),
        make(attention=AttentionConfig(score="relu")),
        make(attention=AttentionConfig(sink="zero")),
    ]
    assert len({model_digest(model) for model in models}) == len(models)
    assert model_digest(make()) == model_digest(make())

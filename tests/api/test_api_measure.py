"""`measure` and `attention_maps`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from polars.testing import assert_frame_equal
from running import run, tree
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import sinkablate as sa
from sinkablate.diagnose.images import BUILTIN

SMALL = ("--backbone.name", "vit_tiny_patch16_224", "--backbone.img_size", "64", "--backbone.pretrained", "false")


@pytest.fixture(scope="module")
def small() -> nn.Module:
    """The model of `SMALL`."""
    return sa.create_model("vit_tiny_patch16_224", img_size=64)


def test_measure_returns_what_diagnose_writes(
    small: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("diagnose", *SMALL, "--images", "builtin", "--out", tmp_path / "out").succeeded()
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    capsys.readouterr()
    m = sa.measure(small, "builtin")
    for name in ("heads", "blocks", "sensitivity"):
        assert_frame_equal(getattr(m, name), pl.read_parquet(tmp_path / "out" / f"{name}.parquet"), check_exact=True)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert json.loads(json.dumps(m.summary)) == {name: summary[name] for name in m.summary}
    assert {"counts", "first_block", "handoff", "rules", "image_count"} <= m.summary.keys()
    stored = np.load(tmp_path / "out" / "per_image.npz")
    np.testing.assert_array_equal(m.per_image["mass"], stored["mass"])
    counts = (m.labels("adaptive") == sa.Label.NOP).sum(axis=0).reshape(-1)
    assert counts.tolist() == m.heads["adaptive_nop"].to_list()
    assert capsys.readouterr() == ("", "")
    assert tree(tmp_path) == before


def test_images_can_be_paths_images_tensors_or_loaders(small: nn.Module) -> None:
    from skimage import __file__ as skimage

    paths = [Path(skimage).parent / "data" / name for name in BUILTIN[:3]]
    loaded = [Image.open(path) for path in paths]
    expected = sa.measure(small, paths).heads
    assert_frame_equal(sa.measure(small, loaded).heads, expected)
    tensors = torch.stack([sa_transform(small)(image.convert("RGB")) for image in loaded])
    labels = torch.zeros(len(tensors))
    for images in (
        tensors,
        list(tensors),
        DataLoader(TensorDataset(tensors, labels), batch_size=3),
        DataLoader([{"pixel_values": tensor} for tensor in tensors], batch_size=3),  # type: ignore[arg-type]
    ):
        assert_frame_equal(sa.measure(small, images).heads, expected)


def sa_transform(model: nn.Module) -> Any:
    """The evaluation transform of timm for a model of 64 pixels."""
    from timm.data import create_transform, resolve_data_config

    return create_transform(**resolve_data_config({"input_size": (3, 64, 64)}, pretrained_cfg=model.pretrained_cfg))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 64, 64), r"expected a batch \(n, C, H, W\)"),
        ([], "images is empty; at least one image is needed"),
        (["nowhere.png"], "nowhere.png cannot be read"),
        ([3], "item 0 is of type int"),
        (DataLoader([{"x": torch.zeros(3)}]), "pixel_values"),  # type: ignore[arg-type]
    ],
)
def test_images_that_cannot_be_used_are_refused(images: Any, message: str, model: nn.Module) -> None:
    with pytest.raises(sa.UserError, match=message):
        sa.measure(model, images)


def test_measure_leaves_the_model_and_its_wrappers_as_they_were(model: nn.Module, images: Tensor) -> None:
    model.train()
    wrapped: Any = nn.DataParallel(model) if torch.cuda.is_available() else torch.compile(model, backend="eager")
    state = torch.get_rng_state()
    m = sa.measure(wrapped, images, blocks=[-1])
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert m.heads["block"].unique().to_list() == [2]
    with pytest.raises(sa.UserError, match="choose one of causal"):
        m.labels("none")
    with pytest.raises(sa.UserError, match="outside the model's 3 blocks"):
        sa.measure(model, images, blocks=[3])


def test_attention_maps_are_the_softmax_of_the_models_own_logits(images: Tensor) -> None:
    model: Any = sa.create_model("vit_tiny_patch16_224", img_size=64, depth=2).double()
    maps = sa.attention_maps(model, images, heads=[(1, 2), (0, 1)], batch_size=4)
    with torch.no_grad():
        stream = model.blocks[0](model._pos_embed(model.patch_embed(images.double())))
        block = model.blocks[1]
        q, k, _ = block.attn.qkv(block.norm1(stream)).unflatten(-1, (3, 3, 64)).permute(2, 0, 3, 1, 4)
        expected = (q[:, 2] @ k[:, 2].mT / 8).softmax(-1)
    assert maps[1, 2].dtype == torch.float64
    torch.testing.assert_close(maps[1, 2], expected, rtol=0, atol=1e-12)
    assert maps[0, 1].shape == (6, 17, 17)
    with pytest.raises(sa.UserError, match="heads: 2:0 is outside"):
        sa.attention_maps(model, images, heads=[(2, 0)])

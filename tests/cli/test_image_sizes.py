"""Images that are not square, from training to figures and reports."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from running import CONFIGS, assert_refused, checkpoint, fit, run, summary
from sharing import Once
from timm.layers import resample_abs_pos_embed

import sinkablate as sa
from sinkablate.data.embedded import EmbeddedRecords
from sinkablate.data.errors import ErrorPolicy
from sinkablate.figures.token_maps import load_token_maps
from sinkablate.report.held_maps import held_maps
from sinkablate.report.reading import read_run


def write_wide(root: Path) -> None:
    """Train on images of 14 x 56 pixels, 2 x 8 patches, as many as 4 x 4; diagnose the run, twice."""
    fit(root / "run", "--data.image.size=[14,56]", configs=[CONFIGS / "gate_reg.yaml"]).succeeded()
    run("diagnose", "--run", root / "run", "--limit", "8", "--out", root / "diagnosis").succeeded()


@pytest.fixture(scope="session")
def wide(once: Once) -> Path:
    """A run on wide images, and its diagnosis."""
    return once("wide", write_wide)


def test_a_run_stores_height_and_width(wide: Path) -> None:
    saved = checkpoint(wide / "run")
    assert saved["hyper_parameters"]["img_size"] == (14, 56)
    assert saved["state_dict"]["backbone.pos_embed"].shape[1] == 2 * 8
    run_of = sa.load_run(str(wide / "run"))
    assert run_of.images.shape[1:] == (1, 14, 56)


def test_evaluation_images_are_scaled_to_cover_the_rectangle_and_cropped(wide: Path) -> None:
    run_of = sa.load_run(str(wide / "run"))
    sample = EmbeddedRecords("val", num_classes=10, on_error=ErrorPolicy("stop"))[0].image
    assert isinstance(sample, Image.Image)
    pixels = np.asarray(sample.resize((56, 56), Image.Resampling.BICUBIC), dtype=np.float32)[21:35] / 255
    torch.testing.assert_close(
        run_of.transform(sample)[0], torch.from_numpy((pixels - 0.286) / 0.353), atol=1e-5, rtol=0
    )


def test_token_maps_of_a_diagnosis_have_rows_and_columns_of_the_image(wide: Path) -> None:
    maps = load_token_maps(wide / "diagnosis" / "token_maps.npz")
    assert maps.norms.shape[2:] == (2, 8)
    assert maps.pictures.shape[1:] == (14, 56)
    assert summary(wide / "diagnosis")["token_maps"]["grid"] == [2, 8]
    drawn = pl.read_csv(wide / "diagnosis" / "figures" / "token_maps.csv")
    assert (drawn["row"].max(), drawn["column"].max()) == (1, 7)


@pytest.mark.parametrize("form", ["run", "export"])
def test_weights_of_another_shape_with_as_many_patches_are_resampled(form: str, wide: Path, tmp_path: Path) -> None:
    weights = wide / "run" / "checkpoints" / "last.ckpt"
    saved = checkpoint(wide / "run")["state_dict"]["backbone.pos_embed"]
    if form == "export":
        run("export", "--run", wide / "run", "--out", tmp_path, "--format", "hub").succeeded()
        weights = tmp_path / "model.safetensors"
    fields: dict[str, Any] = {"registers": 4, "gate": "headwise", "checkpoint": str(weights), "in_chans": 1}
    square: Any = sa.create_model("vit_mini", img_size=28, num_classes=10, **fields)
    expected = resample_abs_pos_embed(saved, new_size=[4, 4], old_size=[2, 8], num_prefix_tokens=0)
    assert torch.equal(square.pos_embed, expected)
    same: Any = sa.create_model("vit_mini", img_size=(14, 56), num_classes=10, **fields)
    assert torch.equal(same.pos_embed, saved)


def test_the_maps_of_a_report_are_arranged_as_the_image(wide: Path) -> None:
    maps = held_maps(read_run(wide / "diagnosis"))
    assert maps is not None
    assert maps.grid == (2, 8)


def test_a_plan_counts_the_tokens_of_the_rectangle() -> None:
    def flops(size: str) -> int:
        outcome = run("plan", f"--data.image.size={size}", "--json", "true").succeeded()
        count: int = json.loads(outcome.out)["flops_per_image"]
        return count

    assert flops("[14,56]") == flops("28")
    assert flops("[28,42]") > flops("28")


@pytest.mark.parametrize(
    ("words", "phrases"),
    [
        (["--data.image.size=[28,40]"], ["data.image.size=[28, 40]: does not divide", "such as [28, 35] or [28, 42]"]),
        (["--data.image.size=[30,28]"], ["data.image.size=[30, 28]", "28 or [35, 28]"]),
        (["--data.image.size=[28,0]"], ["data.image.size must be positive, got 0"]),
        (["--data.image.size=[28,28,28]"], ["data.image.size"]),
        (
            ["--data.image.size=[28,42]", "--model.backbone.img_size=[42,28]"],
            ["model.backbone.img_size=[42, 28] differs from data.image.size=[28, 42]"],
        ),
    ],
    ids=lambda value: value[-1],
)
def test_sizes_that_make_no_sense_are_refused(words: list[str], phrases: list[str]) -> None:
    assert_refused(run("plan", *words), *phrases)


def test_a_square_in_two_numbers_is_the_same_square() -> None:
    in_two: Any = sa.create_model("vit_mini", img_size=[28, 28], in_chans=1, num_classes=10)
    square: Any = sa.create_model("vit_mini", img_size=28, in_chans=1, num_classes=10)
    images = torch.randn(2, 1, 28, 28)
    assert torch.equal(in_two.eval()(images), square.eval()(images))
    assert run("plan", "--data.image.size=[28,28]", "--model.backbone.img_size=28").code == 0


@pytest.mark.parametrize(("size", "grid"), [([64, 96], [4, 6]), (64, [4, 4])], ids=str)
@pytest.mark.parametrize(("name", "registers"), [("gap", 4), ("siglip", 0)])
def test_naflexvit_is_measured_with_its_own_layout(name: str, registers: int, size: Any, grid: list[int]) -> None:
    fields = {"depth": 1, "embed_dim": 48, "num_heads": 3}
    model = sa.create_model(f"naflexvit_base_patch16_{name}", img_size=size, num_classes=0, **fields)
    sides = size if isinstance(size, list) else [size, size]
    measured = sa.measure(model, torch.randn(2, 3, *sides))
    assert measured.summary["num_prefix_tokens"] == registers
    assert measured.summary["num_tokens"] == registers + grid[0] * grid[1]

"""Token maps: planted outliers are found where they are, and chance levels are those of random patches."""

from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from variants import make, noise, perturbed

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.patches import border, corners, low_texture, patch_variance
from sinkablate.diagnostics.probe import record
from sinkablate.diagnostics.records import Records
from sinkablate.diagnostics.token_maps import missing_maps, token_maps

ROWS, COLUMNS, PREFIX, IMAGES, DEPTH, HEADS = 4, 6, 3, 12, 3, 4
OUTLIERS = ((0, 0), (0, 3), (2, 2))
"""Positions of the planted outliers: a corner, the border and the interior."""


@cache
def measured() -> Records:
    """Records of images that are wider than high, (12, 1, 16, 24) in patches of 4, with two registers."""
    shape = {"img_size": (ROWS * 4, COLUMNS * 4), "patch_size": 4, "embed_dim": 40, "depth": DEPTH, "num_heads": HEADS}
    model = VisionTransformer(**shape, in_chans=1, num_classes=0, reg_tokens=2).eval()
    return record(model, [noise(IMAGES, 1, ROWS * 4, COLUMNS * 4)], ThresholdConfig())[0]


def with_outliers(every: int = 1) -> Records:
    """The records with outliers in every such image after block 0, where head 0 of block 1 attends to the first."""
    generator = np.random.default_rng(0)
    norms = generator.lognormal(2.0, 0.1, (IMAGES, DEPTH, PREFIX + ROWS * COLUMNS))
    tokens = [PREFIX + row * COLUMNS + column for row, column in OUTLIERS]
    norms[::every, 0, tokens] *= generator.uniform(15, 20, (len(norms[::every]), len(tokens)))
    sink = np.zeros((IMAGES, DEPTH, HEADS))
    sink[:, 1, 0], sink[:, 1, 1] = tokens[0], tokens[0] + 1
    heads = measured().heads | {"sink_idx": sink.astype(np.float32)}
    return replace(measured(), norms=norms.astype(np.float32), heads=heads)


def row(table: pl.DataFrame, block: int, stage: str = "output") -> dict[str, float]:
    return table.row(by_predicate=(pl.col("block") == block) & (pl.col("stage") == stage), named=True)


def test_planted_outliers_are_found_at_their_positions() -> None:
    records = with_outliers(every=2)
    maps = token_maps(records, ThresholdConfig())
    found, norms = row(maps.table, 0), records.norms[:, 0, PREFIX:].astype(np.float64)
    assert found["fit"] == "outliers"
    assert np.exp(2.5) < found["cutoff"] < 15 * np.exp(1.7)
    marks = norms > found["cutoff"]
    assert sorted(set(zip(*np.where(marks.reshape(-1, ROWS, COLUMNS)[0]), strict=True))) == sorted(OUTLIERS)
    assert found["outliers"] == marks.mean() == 3 * 6 / (12 * 24)
    assert (found["outliers_per_image"], found["images_with_outliers"]) == (1.5, 0.5)
    assert (found["border"], found["corner"]) == pytest.approx((2 / 3, 1 / 3))
    assert (found["chance_border"], found["chance_corner"]) == pytest.approx((16 / 24, 4 / 24))
    expected = np.zeros((ROWS, COLUMNS))
    expected[tuple(np.transpose(OUTLIERS))] = 0.5
    np.testing.assert_allclose(maps.frequency[1], expected)
    np.testing.assert_array_equal(maps.outliers[:, 1], marks.reshape(-1, ROWS, COLUMNS)[:8])
    np.testing.assert_allclose(maps.mean[1], norms.mean(0).reshape(ROWS, COLUMNS), rtol=1e-6)


def test_low_texture_is_compared_with_patches_of_the_same_images() -> None:
    records = with_outliers(every=3)
    variance = np.random.default_rng(1).random((IMAGES, ROWS, COLUMNS)).astype(np.float32)
    variance[:, 0, 0] = 0
    variance[3, :, 1:] = 0  # an image of which 21 of 24 patches have the same pixels
    found = row(token_maps(replace(records, patch_variance=variance), ThresholdConfig()).table, 0)
    flat = [v <= np.sort(v.ravel())[5] for v in variance.astype(np.float64)]
    outlying = [(image, *place) for image in range(0, IMAGES, 3) for place in OUTLIERS]
    assert found["low_texture"] == pytest.approx(np.mean([flat[i][r, c] for i, r, c in outlying]))
    assert found["chance_low_texture"] == pytest.approx(np.mean([flat[i].mean() for i, _, _ in outlying]))
    assert flat[3].mean() > 0.8


def test_the_heads_that_read_outliers_are_named() -> None:
    maps = token_maps(with_outliers(every=2), ThresholdConfig())
    shares = maps.heads.filter(pl.col("block") == 1)
    assert shares["sink_outliers"].to_list() == [0.5, 0, 0, 0]
    np.testing.assert_allclose(shares["chance_sink_outliers"], 0.5 * 3 / (PREFIX + ROWS * COLUMNS))
    assert maps.heads.filter(pl.col("block") != 1)["sink_outliers"].is_nan().all()  # no outliers to read
    assert row(maps.table, 0)["sink_outliers"] == pytest.approx(0.5 / HEADS)


def test_a_model_without_outliers_says_that_one_component_fits_as_well() -> None:
    maps = token_maps(with_outliers(every=2), ThresholdConfig())
    without = maps.table.filter(pl.col("block") == 1)
    assert without["fit"].to_list() == ["one component"]
    assert without["components"].to_list() == [1]
    assert without["bic_difference"][0] < 10
    assert without["cutoff"].is_nan().all()
    assert without["outliers"].to_list() == [0]
    assert without["border"].is_nan().all()
    assert maps.summary["stages_with_outliers"] == ["after block 0"]


def test_two_groups_of_similar_norm_and_a_large_upper_group_are_not_outliers() -> None:
    generator = np.random.default_rng(0)
    norms = generator.lognormal(2.0, 0.05, (IMAGES, DEPTH, PREFIX + ROWS * COLUMNS))
    norms[:, 0, PREFIX : PREFIX + 4] *= 1.6
    norms[:, 1, PREFIX : PREFIX + 16] *= 10
    table = token_maps(replace(measured(), norms=norms.astype(np.float32)), ThresholdConfig()).table
    assert row(table, 0)["fit"] == "two groups of similar norm"
    assert row(table, 1)["fit"] == "most patches in the upper group"
    assert table["cutoff"].is_nan().all()


def test_an_absolute_norm_replaces_the_cut_off_from_the_data() -> None:
    maps = token_maps(with_outliers(), ThresholdConfig(outlier_norm=7.0))
    assert set(maps.cutoffs) == {7.0}
    assert row(maps.table, 0)["fit"] == "outliers"
    assert row(maps.table, 1)["outliers"] == (with_outliers().norms[:, 1, PREFIX:] > 7).mean()


def test_norms_before_the_first_block_are_those_of_its_input() -> None:
    model = perturbed(make(depth=DEPTH, registers=2))
    images, inputs = noise(3, 1, 28, 28), {}
    for index, block in enumerate(model.blocks):
        block.register_forward_pre_hook(lambda _, args, index=index: inputs.setdefault(index, args[0]))
    records, _ = record(model, [images], ThresholdConfig())
    expected = {index: np.linalg.norm(x.detach().double().numpy(), axis=-1) for index, x in inputs.items()}
    np.testing.assert_allclose(records.input_norms[:, 0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(records.norms[:, 0], expected[1], rtol=1e-6)
    maps = token_maps(records, ThresholdConfig())
    assert [stage.name for stage in maps.stages] == ["before block 0", *(f"after block {b}" for b in range(DEPTH))]
    np.testing.assert_allclose(maps.norms[:, 0].reshape(3, -1), expected[0][:, PREFIX:], rtol=1e-6)
    assert maps.prefix_types == ("cls", "register", "register")
    assert maps.table["norm_cls"][0] == pytest.approx(expected[0][:, 0].mean())
    inputs.clear()
    part, _ = record(model, [images], ThresholdConfig(), blocks=[0, 2])
    np.testing.assert_allclose(part.input_norms[:, 1], expected[2], rtol=1e-6)
    stages = [stage.name for stage in token_maps(part, ThresholdConfig(), [0, 2]).stages]
    assert stages == ["before block 0", "after block 0", "before block 2", "after block 2"]


def test_regions_and_variance_of_patches() -> None:
    assert border(4, 6).sum() == 16
    assert not border(4, 6)[1:3, 1:5].any()
    assert np.argwhere(corners(4, 6)).tolist() == [[0, 0], [0, 5], [3, 0], [3, 5]]
    images = noise(2, 3, 9, 13)  # a row and a column of pixels do not fill a patch
    variance = patch_variance(images[..., :8, :12], 6)
    assert variance is not None
    assert variance.shape == (2, 2, 3)
    for image, r, c in np.ndindex(2, 2, 3):
        pixels = images[image, :, 4 * r : 4 * r + 4, 4 * c : 4 * c + 4].double().numpy()
        assert float(variance[image, r, c]) == pytest.approx(pixels.var(axis=(1, 2)).mean(), rel=1e-5)
    assert patch_variance(images, 7) is None
    strip = patch_variance(noise(1, 1, 4, 12), 3)
    assert strip is not None
    assert strip.shape == (1, 1, 3)
    assert patch_variance(torch.zeros(2, 2, 9), 9) is None
    assert low_texture(np.float32([[0, 0, 0, 5, 6, 7, 8, 9]])).tolist() == [[True] * 3 + [False] * 5]


def test_records_without_a_grid_say_why_they_have_no_maps() -> None:
    assert missing_maps(measured()) == ""
    assert "patches fill a grid" in missing_maps(replace(measured(), patch_variance=None))
    texts = replace(measured(), token_types=np.zeros((IMAGES, 27), np.int8))
    assert missing_maps(texts) == "a text has no patches"

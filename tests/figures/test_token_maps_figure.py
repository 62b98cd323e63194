"""The figure of token norms, and the file that they are stored in."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sinkablate.figures.token_maps import StoredMaps, chosen_stages, load_token_maps, save_token_maps, token_maps


def maps(largest: float = 100.0) -> StoredMaps:
    """Two images of 2 x 3 patches before and after one block, with one outlier."""
    norms = np.arange(24, dtype=np.float32).reshape(2, 2, 2, 3) + 1
    norms[1, 1, 0, 2] = largest
    frequency = np.zeros((2, 2, 3), np.float32)
    frequency[1, 0, 2] = 0.5
    return StoredMaps(
        names=("a.png", "b.png"),
        pictures=np.zeros((2, 8, 12, 3), np.uint8),
        blocks=(0, 0),
        stages=("input", "output"),
        norms=norms,
        prefix_norms=np.full((2, 2, 3), 0.5, np.float32),
        prefix_types=("cls", "register", "register"),
        cutoff=np.float32([np.nan, 50]),
        frequency=frequency,
        mean=norms.mean(0),
    )


@pytest.mark.parametrize(("largest", "kind"), [(100.0, np.float16), (1e6, np.float32)])
def test_maps_are_stored_in_half_precision_unless_a_norm_is_too_large(
    largest: float, kind: type, tmp_path: Path
) -> None:
    save_token_maps(tmp_path / "maps.npz", maps(largest))
    with np.load(tmp_path / "maps.npz") as stored:
        assert stored["norms"].dtype == kind
    loaded = load_token_maps(tmp_path / "maps.npz")
    for name, value in vars(maps(largest)).items():
        np.testing.assert_array_equal(getattr(loaded, name), value, err_msg=name)


def test_a_file_whose_arrays_do_not_fit_is_refused(tmp_path: Path) -> None:
    damaged = maps()
    object.__setattr__(damaged, "cutoff", np.float32([50]))
    save_token_maps(tmp_path / "maps.npz", damaged)
    with pytest.raises(ValueError, match="do not fit"):
        load_token_maps(tmp_path / "maps.npz")


def test_the_figure_shows_images_by_stages_and_its_data_every_patch() -> None:
    figure, data = token_maps(maps(), "model", {"register": "null token"})
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == ["before block 0", "after block 0\ncut-off 50"]
    labels = [axis.get_xlabel() for axis in figure.axes]
    assert {"a.png", "b.png", "cls 0.5\nnull token 0.5", "7 to 12", "13 to 54.5\n0.5 outliers per image"} <= {*labels}
    assert "framed" in figure.get_suptitle()
    assert len(data) == (2 + 1) * 2 * 6
    outlying = data.filter(pl.col("outlier") > 0)
    assert outlying.select("image", "stage", "row", "column", "norm", "outlier").rows() == [
        ("b.png", "output", 0, 2, 100.0, 1.0),
        ("mean over all images", "output", 0, 2, (9 + 100) / 2, 0.5),
    ]
    images = [image for axis in figure.axes for image in axis.get_images() if axis.get_title() or axis.get_xlabel()]
    limits = {image.get_clim() for image in images if image.get_array().shape == (2, 3)}
    assert {(1.0, 18.0), (7.0, 100.0)} <= limits  # one scale per stage


def test_a_deep_model_shows_its_first_and_last_stage() -> None:
    deep = maps()
    object.__setattr__(deep, "stages", ("input", *["output"] * 24))
    assert chosen_stages(deep) == [0, 5, 10, 14, 19, 24]

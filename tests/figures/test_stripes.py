"""The figure of attention maps and of what their keys write."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from sinkablate.figures.sinks import TYPE_COLORS
from sinkablate.figures.stripes import AttentionMap, load_maps, save_maps, stripes, two_algorithms

TYPES = ("cls", "register", "patch", "patch")


def a_map(block: int, sink: int, mass: float) -> AttentionMap:
    """A head that gives `mass` of every query's attention to one key, whose value is a tenth of the others'."""
    weights = np.full((4, 4), (1 - mass) / 3, np.float32)
    weights[:, sink] = mass
    norms = np.where(np.arange(4) == sink, 0.1, 1).astype(np.float32)
    return AttentionMap(block, 0, weights, norms, TYPES)


def test_all_maps_have_one_color_scale() -> None:
    figure, _ = stripes([a_map(0, 1, 0.9), a_map(1, 3, 0.3)], "a picture")
    limits = [image.get_clim() for axis in figure.axes[:2] for image in axis.images]
    assert limits == [pytest.approx((0, 0.9))] * 2


def test_bars_have_the_color_of_their_token_type_and_the_sink_is_named() -> None:
    figure, data = stripes([a_map(2, 3, 0.7)], "a picture", {"register": "null token"})
    above, below = figure.axes[:2]
    assert above.get_title() == "block 2, head 0\nsink: key 3 (patch)\nattention 0.70"
    colors = [bar.get_facecolor()[:3] for bar in below.patches]
    assert colors == [to_rgb(TYPE_COLORS[kind]) for kind in ("cls", "null", "patch", "patch")]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:3] == ["cls", "null token", "patch"]
    assert data["token_type"].to_list() == list(TYPES)
    assert data["mean_attention"][3] == pytest.approx(0.7)


def test_the_mean_of_the_others_leaves_out_the_sink_and_columns_that_are_not_tokens() -> None:
    weights = np.tile(np.array([0.6, 0.3, 0.1], np.float32), (2, 1))
    shown = AttentionMap(0, 0, weights, np.array([5, 2, 0], np.float32), ("cls", "patch", "null"))
    figure, _ = stripes([shown], "a picture")
    line = figure.axes[1].lines[0]
    assert list(line.get_ydata()) == [2, 2]


def test_the_token_types_are_marked_on_both_axes_and_the_picture_is_beside_the_maps() -> None:
    picture = np.zeros((4, 4, 3), np.float32)
    maps = [a_map(1, 0, 0.9)._replace(picture=picture), a_map(1, 2, 0.5)._replace(picture=picture)]
    figure, _ = stripes(maps, "a picture")
    assert [len(axis.images) for axis in figure.axes[:3]] == [1, 1, 1]
    assert figure.axes[0].images[0].get_array().shape == (4, 4, 3)
    marks = [(to_rgb(line.get_color()), np.ravel(line.get_data()).tolist()) for line in figure.axes[1].lines]
    colors = [to_rgb(TYPE_COLORS[kind]) for kind in ("cls", "register", "patch")]
    assert [color for color, _ in marks] == colors * 2
    assert marks[2][1] == [1.5, 3.5, 0, 0]  # the patches, along the keys
    assert marks[5][1] == [0, 0, 1.5, 3.5]  # and along the queries


def test_maps_are_stored_and_loaded(tmp_path: Path) -> None:
    maps = [a_map(1, 2, 0.5)._replace(picture=np.ones((3, 3), np.float32)), a_map(2, 0, 0.25)]
    save_maps(tmp_path / "maps.npz", maps)
    loaded = load_maps(tmp_path / "maps.npz", "model")
    assert [(shown.block, shown.head, shown.sink, shown.model) for shown in loaded] == [
        (1, 0, 2, "model"),
        (2, 0, 0, "model"),
    ]
    np.testing.assert_allclose(loaded[0].weights, maps[0].weights, atol=1e-3)
    np.testing.assert_array_equal(loaded[1].value_norms, maps[1].value_norms)
    assert loaded[0].picture is not None
    assert loaded[0].token_types == TYPES


def test_the_two_algorithms_are_the_strongest_sinks_of_each_after_block_0() -> None:
    def with_ratio(block: int, ratio: float, mass: float, model: str = "deep") -> AttentionMap:
        shown = a_map(block, 0, mass)
        return shown._replace(value_norms=np.array([ratio, 1, 1, 1], np.float32), model=model)

    broadcast, nop = with_ratio(2, 0.9, 0.6), with_ratio(0, 0.1, 0.5, "toy")
    others = [with_ratio(0, 1.0, 0.9), with_ratio(1, 0.8, 0.3), with_ratio(1, 0.3, 0.95), with_ratio(1, 0.05, 0.4)]
    assert two_algorithms([*others, broadcast, nop], 0.2, 0.5) == [nop, broadcast]

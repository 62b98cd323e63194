"""The figure of attention maps and of what their keys write."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from sinkablate.figures.sinks import TYPE_COLORS
from sinkablate.figures.stripes import AttentionMap, stripes

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
    assert above.get_title() == "block 2, head 0\nsink: key 3 (patch), 0.70"
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

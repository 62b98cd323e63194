"""Figures of simulated quantization show the numbers of their table."""

import numpy as np
import polars as pl
import pytest

from sinkablate.figures.quantization import block_of, by_layer, by_scheme, kind_of

SCHEMES = {
    "w8a8_static": 1e-3,
    "w8a8_dynamic": 5e-4,
    "w8a8_token": 1e-5,
    "w8": 1e-6,
    "w4a4_static": 0.5,
    "w4a4_token": 0.1,
}


def rows(metric: str) -> pl.DataFrame:
    """A table with damage by `kl` or `cosine`, two layers in blocks and one outside of them."""
    table = []

    def add(protocol: str, name: str, value: float, item: str = "", seed: int | None = None) -> None:
        table.append({"protocol": protocol, "metric": name, "item": item, "seed": seed, "value": value})

    for protocol, damage in SCHEMES.items():
        for end, factor in {"": 1.0, "_low": 0.5, "_high": 2.0}.items():
            value = damage * factor
            if metric == "cosine":
                value = 1 - damage * {"": 1.0, "_low": 2.0, "_high": 0.5}[end]
            add(protocol, f"{metric}{end}", value)
        if "a" in protocol:
            for end, value in {"": 0.3, "_low": 0.2, "_high": 0.4}.items():
                add(protocol, f"share_sinks_kept{end}", value)
                add(protocol, f"share_random_kept{end}", -value, seed=1)
    for layer, damage in {"blocks.0.attn.qkv": 0.1, "blocks.1.attn.qkv": 0.2, "head": 0.0}.items():
        add("a8_static", metric, damage if metric == "kl" else 1 - damage, item=layer)
    add("fp32", "sinks_per_image", 2)
    return pl.DataFrame(table, schema_overrides={"seed": pl.Int64})


@pytest.mark.parametrize("metric", ["kl", "cosine"])
def test_points_are_at_the_damage_of_the_table(metric: str) -> None:
    figure, data = by_scheme(rows(metric))
    axis = figure.axes[0]
    drawn = sorted(y for container in axis.containers for y in container[0].get_ydata())
    assert drawn == pytest.approx(sorted(SCHEMES.values()))
    segments = np.concatenate([bars.get_segments() for box in axis.containers for bars in box[2]])
    lengths = sorted(segment[1, 1] / segment[0, 1] for segment in segments)
    assert lengths == pytest.approx([4] * len(SCHEMES))
    assert set(data["protocol"]) == set(SCHEMES)
    shares = sorted({float(y) for line in figure.axes[1].get_lines()[:-1] for y in line.get_ydata()})
    assert shares == pytest.approx([-0.3, 0.3])


@pytest.mark.parametrize("metric", ["kl", "cosine"])
def test_layers_are_drawn_by_kind_and_block(metric: str) -> None:
    figure, data = by_layer(rows(metric))
    qkv, head = figure.axes
    (line,) = qkv.get_lines()
    assert line.get_xdata().tolist() == [0, 1]
    assert line.get_ydata().tolist() == pytest.approx([0.1, 0.2])
    assert [axis.get_title() for axis in (qkv, head)] == ["attn.qkv", "head"]
    assert head.get_lines()[0].get_ydata()[0] > 0  # no damage is drawn at the lower end of the logarithmic axis
    assert data["value"].to_list() == pytest.approx([0.1, 0.2, 0.0])
    figure.canvas.draw()
    assert "0.0001" in [label.get_text() for label in qkv.get_yticklabels()]


def test_names_of_layers() -> None:
    assert (block_of("encoder.layer.11.attention.query"), kind_of("encoder.layer.11.attention.query")) == (
        11,
        "attention.query",
    )
    assert (block_of("head"), kind_of("head")) == (None, "head")

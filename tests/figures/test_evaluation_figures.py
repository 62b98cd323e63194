"""The figure of an evaluation shows the numbers of its table."""

from typing import Any

import pytest

from sinkablate.evaluate.rows import Row, scalars, table_of
from sinkablate.figures.evaluation import overview


def test_bars_are_means_over_seeds_and_numbers_of_several_protocols() -> None:
    values: dict[Any, Any] = {"model": (0.5, 0.7), "random": (0.3, 0.3), "pixels": (0.2, 0.4)}
    rows = [
        Row(task="linear", protocol=protocol, metric="acc1", seed=seed, value=value + shift, backbone=name)
        for name, of_seeds in values.items()
        for protocol, shift in (("cls", 0.0), ("patch", 0.1))
        for seed, value in enumerate(of_seeds)
    ]
    rows.append(Row(task="linear", protocol="cls", metric="iou", item="shoe", seed=0, value=0.9))
    figure, data = overview(table_of(rows), "vit_mini")
    assert figure.get_suptitle().endswith("\nvit_mini")
    assert figure.axes[0].get_ylabel() == "acc1"
    assert len(figure.axes[0].containers) == 1 + 3  # the bars, and the error bar of each
    single, _ = overview(table_of([row for row in rows if row.seed == 0]))
    assert len(single.axes[0].containers) == 1  # no error bars of a single seed
    assert [bar.get_height() for bar in figure.axes[0].patches] == pytest.approx([0.6, 0.3, 0.3])
    assert data["mean"].to_list() == pytest.approx([0.6, 0.3, 0.3])
    numbers = scalars(table_of(rows))
    assert numbers["linear/acc1"] == pytest.approx(0.6)
    assert numbers["linear/acc1_sd"] == pytest.approx(0.02**0.5)
    assert numbers["linear/acc1/patch@pixels"] == pytest.approx(0.4)
    assert "linear/iou" not in numbers


def test_no_rows_are_drawn_as_such() -> None:
    figure, data = overview(table_of([]))
    assert not len(data)
    assert [text.get_text() for text in figure.axes[0].texts] == ["no task has finished"]

"""`sweep plan --gpus N` predicts when the cells of a sweep train."""

import json
from pathlib import Path
from typing import Any

import pytest
from running import CONFIGS, assert_refused, run
from sweeping import content, sweep, written

from sinkablate.sweep.predicting import schedule

TWO_SIZES = {"model.backbone.depth": {"values": [1, 2]}, "seed_everything": {"values": [0, 1]}}


@pytest.mark.parametrize(
    ("cells", "gpus", "starts"),
    [
        ([(3, 1), (1, 1), (2, 1), (1, 1)], 1, [0, 3, 4, 6]),
        ([(3, 1), (1, 1), (2, 1), (1, 1)], 2, [0, 0, 1, 3]),
        ([(3, 1), (1, 1), (2, 1), (1, 1)], 8, [0, 0, 0, 0]),
        ([(2, 1), (4, 2), (1, 1), (1, 1)], 2, [0, 2, 6, 6]),
        ([(5, 1), (4, 4), (1, 1)], 4, [0, 5, 9]),  # no cell overtakes an earlier one
    ],
)
def test_cells_start_in_order_as_soon_as_their_devices_are_free(
    cells: list[tuple[float, int]], gpus: int, starts: list[float]
) -> None:
    assert schedule(cells, gpus) == starts


def predicted(path: Path, *args: str) -> dict[str, Any]:
    """Result of `sweep plan` for H100s, as JSON."""
    words = ("--device", "h100", "--format", "json", *args)
    result: dict[str, Any] = json.loads(sweep("plan", path, *words).succeeded().out)
    return result


def test_the_time_of_every_cell_is_that_of_plan(tmp_path: Path) -> None:
    path = written(tmp_path, content(TWO_SIZES, "--diagnostics.every_n_steps=0"))
    result = predicted(path, "--gpus", "2")
    shallow, deep = (
        json.loads(run("plan", *words, "--device", "h100", "--json").succeeded().out)["prediction"]
        for words in (result["cells"][0]["words"], result["cells"][2]["words"])
    )
    times = [cell["prediction"] for cell in result["cells"]]
    assert [time["seconds"] for time in times] == [shallow["seconds"]] * 2 + [deep["seconds"]] * 2
    assert [time["start_seconds"] for time in times] == pytest.approx([0, 0, shallow["seconds"], shallow["seconds"]])
    assert result["prediction"]["seconds"] == pytest.approx(shallow["seconds"] + deep["seconds"])
    assert result["prediction"]["device_seconds"] == pytest.approx(2 * result["prediction"]["seconds"])
    assert not (tmp_path / "cells").exists()

    text = sweep("plan", path, "--gpus", "4", "--device", "h100").succeeded().out
    assert "on 4 x h100 (4 cells" in text
    assert "depth=2 s1" in text


@pytest.mark.parametrize(
    ("args", "words", "message"),
    [
        ((), ("--gpus", "0"), "gpus must be at least 1, got 0"),
        ((), ("--device", "h100"), "device=h100: has no effect without --gpus N"),
        ((), ("--gpus", "1", "--device", "h300"), "device=h300: no such device; did you mean h200 or h100"),
        (("--trainer.devices=4",), ("--gpus", "2", "--device", "h100"), "gpus=2: depth=1 s0 trains on 4 devices"),
        (
            ("--config", str(CONFIGS / "data" / "imagenet.yaml")),
            ("--gpus", "2", "--device", "h100"),
            "depth=1 s0: the number of training images is unknown; add --images N",
        ),
    ],
)
def test_what_cannot_be_predicted_is_refused(
    args: tuple[str, ...], words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    path = written(tmp_path, content(TWO_SIZES, "--diagnostics.every_n_steps=0", *args))
    assert_refused(sweep("plan", path, *words), message)


def test_a_sweep_of_toys_has_no_images_to_count(tmp_path: Path) -> None:
    toys = content({"seed_everything": {"values": [0, 1]}})
    toys["command"] = [
        *("sinkablate", "fit", "--config", str(CONFIGS / "toy" / "nop.yaml"), "--sweep", "small", "${args}")
    ]
    assert_refused(sweep("plan", written(tmp_path, toys), "--gpus", "1", "--device", "h100"), "task=toy: plan counts")

"""Cells of a sweep: grid, identities and names."""

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
from running import CONFIGS
from sweeping import content, opened, written

from sinkablate.run.cells import Cell, cell_id, config_names, configs_first, short_names, variant_name

BASELINE, RELU = str(CONFIGS / "baseline.yaml"), str(CONFIGS / "relu.yaml")


def test_cells_are_the_full_grid(tmp_path: Path) -> None:
    grid = opened(written(tmp_path, content()))
    assert [tuple(cell.factors.values()) for cell in grid.cells] == list(itertools.product("02", "01"))
    assert [cell.label for cell in grid.cells] == [
        "registers=0 s0",
        "registers=0 s1",
        "registers=2 s0",
        "registers=2 s1",
    ]
    assert all(
        cell.words[-2:]
        == (
            f"--model.backbone.registers={cell.factors['model.backbone.registers']}",
            f"--seed_everything={cell.factors['seed_everything']}",
        )
        for cell in grid.cells
    )


def ids(sweep_content: dict[str, Any], folder: Path) -> set[str]:
    """Identities of the cells of a sweep."""
    return {cell.id for cell in opened(written(folder, sweep_content)).cells}


def test_identities_do_not_depend_on_order_and_a_new_value_only_adds_cells(tmp_path: Path) -> None:
    default = content()
    before = ids(default, tmp_path)
    reordered = {key: {"values": spec["values"][::-1]} for key, spec in reversed(default["parameters"].items())}
    assert ids(content(reordered), tmp_path) == before
    extended = ids(content(default["parameters"] | {"seed_everything": {"values": [0, 7, 1]}}), tmp_path)
    assert len(before) == 4
    assert before < extended
    assert len(extended) == 6


ARGS = ["--config=a.yaml", "--config=b.yaml", "--model.x=1", "--seed_everything=0"]


SAME = {
    "order of keys": ["--config=a.yaml", "--seed_everything=0", "--config=b.yaml", "--model.x=1"],
    "spaces": ["--config", "a.yaml", "-c", "b.yaml", "--model.x", "1", "--seed_everything", "0"],
    "a repeated key, of which the last value counts": ["--model.x=3", *ARGS],
    "where the run is computed": [
        *ARGS,
        "--trainer.devices=2",
        "--diagnostics.memory_mib=0",
        "--run_dir",
        "x",
        "--wandb.mode=offline",
        "--overwrite",
    ],
}


OTHERS = {
    "order of configs": ["--config=b.yaml", "--config=a.yaml", *ARGS[2:]],
    "another value": [*ARGS[:3], "--seed_everything=1"],
    "an additional key": [*ARGS, "--model.y=1"],
    "a negative value": [*ARGS[:2], "--model.x", "-1", "--seed_everything=0"],
}


@pytest.mark.parametrize("args", SAME.values(), ids=SAME)
def test_the_same_run_has_the_same_identity(args: list[str]) -> None:
    assert cell_id(args) == cell_id(ARGS)


@pytest.mark.parametrize("args", OTHERS.values(), ids=OTHERS)
def test_different_runs_have_different_identities(args: list[str]) -> None:
    assert cell_id(args) != cell_id(ARGS)


def test_identities_of_many_cells_differ() -> None:
    numbers = random.Random(0).sample(range(10**9), 2000)
    assert len({Cell((f"--model.x={number}",), {}).id for number in numbers}) == 2000


def test_short_names_are_unambiguous() -> None:
    assert short_names(["model.backbone.gate", "model.toy.gate", "data.size", "seed_everything"]) == {
        "model.backbone.gate": "backbone.gate",
        "model.toy.gate": "toy.gate",
        "data.size": "size",
        "seed_everything": "seed",
    }


@pytest.mark.parametrize(
    ("args", "variant", "name"),
    [
        (
            ["--model.backbone.registers=4", "--model.backbone.attention.gate=headwise"],
            "baseline",
            "gate=headwise+registers=4",
        ),
        (["--model.toy.attention={score: relu}", "--seed_everything=3"], "nop", "nop+attention=score_relu"),
        (["--trainer.max_epochs=2"], "gate_reg", "gate_reg"),
    ],
)
def test_a_cell_has_a_readable_name(args: list[str], variant: str, name: str) -> None:
    assert variant_name(args, variant) == name


def test_identities_have_not_changed_since_earlier_versions() -> None:
    args = [
        "--config=configs/baseline.yaml",
        "--trainer.max_epochs=2",
        "--model.backbone.attention.gate=headwise",
        "--model.backbone.registers=4",
        "--seed_everything=1",
    ]
    assert cell_id(args) == "b360a0edefcb"


def test_a_swept_config_comes_before_other_keys(tmp_path: Path) -> None:
    path = written(tmp_path, content({"seed_everything": {"values": [0, 1]}, "config": {"values": [RELU]}}))
    cell = opened(path).cells[1]
    assert cell.words[:2] == (f"--config={BASELINE}", f"--config={RELU}")
    agent = ["--config", BASELINE, "--variant", "a", "--sweep", "small", f"--config={RELU}", "--x=-1"]
    assert configs_first(agent) == [
        "--config",
        BASELINE,
        f"--config={RELU}",
        "--variant",
        "a",
        "--sweep",
        "small",
        "--x=-1",
    ]


def test_configs_with_equal_file_names_are_distinguished() -> None:
    assert config_names(["a/x.yaml", "b/y.yaml"]) == {"a/x.yaml": "x", "b/y.yaml": "y"}
    assert config_names(["a/x.yaml", "b/x.yaml"]) == {"a/x.yaml": "a/x", "b/x.yaml": "b/x"}
    assert config_names(["x.yaml", "x.yml"]) == {"x.yaml": "x.yaml", "x.yml": "x.yml"}


def test_names_stay_short() -> None:
    names = {variant_name([f"--model.backbone.checkpoint=/{'x' * 300}{end}"], "baseline") for end in "ab"}
    assert len(names) == 2
    assert max(map(len, names)) <= 100
    label = Cell((), {"model.backbone.checkpoint": "x" * 300, "seed_everything": "0"}).label
    assert len(label) < 130
    assert label.endswith("… s0")

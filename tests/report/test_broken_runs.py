"""A report leaves out damaged runs and diagnoses, names the damaged file in one line, and shows the others."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from reporting import report
from running import run

from sinkablate.errors import UserError
from sinkablate.report.reading import read_run
from sinkablate.report.runs import read_runs

Break = Callable[[Path], Any]
STEP, BLOCKS = "diagnostics/step_00000006.parquet", "diagnostics/blocks/step_00000006.parquet"
EARLIER = "diagnostics/step_00000002.parquet"


def cut(share: float) -> Break:
    return lambda path: path.write_bytes(path.read_bytes()[: int(len(path.read_bytes()) * share)])


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3 :: 97] = bytes(255 - byte for byte in data[len(data) // 3 :: 97])
    path.write_bytes(bytes(data))


ANY: dict[str, Break] = {
    "empty": lambda path: path.write_bytes(b""),
    "a tenth": cut(0.1),
    "half": cut(0.5),
    "all but the end": cut(0.97),
    "flipped bytes": flipped,
    "a folder": folder,
    "something else": lambda path: path.write_bytes(bytes(range(256))),
}


def column(name: str, value: Any) -> Break:
    return lambda path: pl.read_parquet(path).with_columns(pl.lit(value).alias(name)).write_parquet(path)


def rows(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Break:
    return lambda path: change(pl.read_parquet(path)).write_parquet(path)


TABLE: dict[str, Break] = {
    **{f"{name} is text": column(name, "x") for name in ("block", "step", "median_mass", "causal_nop")},
    **{f"{name} is a list": column(name, [1]) for name in ("head", "causal_frequency")},
    "blocks are NaN": column("block", float("nan")),
    "blocks are null": column("block", None),
    "blocks are huge": column("block", 2**62),
    "heads are negative": column("head", -1),
    "counts are NaN": column("causal_nop", float("nan")),
    "no images": column("images", 0),
    "another token type": column("token_type", "x"),
    "token types are numbers": column("token_type", 1),
    "no column": rows(lambda table: table.drop("causal_other")),
    "no rows": rows(pl.DataFrame.clear),
    "a row is missing": rows(lambda table: table.head(-1)),
    "twice": rows(lambda table: pl.concat([table, table])),
}


def member(key: str, value: Any) -> Break:
    def change(path: Path) -> None:
        tree = yaml.safe_load(path.read_text())
        *parents, last = key.split(">")
        group = tree
        for name in parents:
            group = group[name]
        group[last] = value
        path.write_text(json.dumps(tree) if path.suffix == ".json" else yaml.safe_dump(tree))

    return change


def text(content: str) -> Break:
    return lambda path: path.write_text(content)


JSON: dict[str, Break] = {
    "deep": text("[" * 200_000),
    "deep groups": text('{"a":' * 5000 + "1" + "}" * 5000),
    "a list": text("[]"),
    "a huge number": text('{"a": ' + "9" * 5000 + "}"),
    "UTF-16": lambda path: path.write_bytes("{}".encode("utf-16")),
    "a metric is text": member("val/acc1", "high"),
    "a metric is a list": member("val/acc1", [1]),
    "a metric is infinite": member("val/acc1", float("inf")),
    "stability is text": member("stability/loss_spikes", "x"),
    "counts are text": member("counts", "x"),
    "counts lack a label": member("counts>causal>by_token_type>nop", None),
    "a count is text": member("counts>causal>by_token_type>nop", {"cls": "x"}),
}
CONFIG: dict[str, Break] = {
    "a threshold is text": member("diagnostics>thresholds>nop_max", "x"),
    "a list": text("- 1"),
    "a threshold is NaN": member("diagnostics>thresholds>rank_max", float("nan")),
    "deep": text("a: " + "[" * 100_000),
    "a tag": text("a: !!python/object/apply:os.getcwd []"),
    "it holds itself": text("a: &a [*a]"),
    "billions of values": text(
        "a0: &a0 [1, 1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    ),
    "Latin": lambda path: path.write_bytes("variant: é".encode("latin1")),
    "a NUL": text("a: \0"),
}
CSV: dict[str, Break] = {
    "a step is text": lambda path: path.write_text(path.read_text() + "x,1\n"),
    "a step is not an integer": lambda path: path.write_text(path.read_text() + "1.5,1\n"),
    "semicolons": lambda path: path.write_text(path.read_text().replace(",", ";")),
    "no step": lambda path: path.write_text(path.read_text().replace("step,", "stp,", 1)),
    "text among numbers": lambda path: path.write_text(path.read_text() + "7,x\n"),
}


def array(name: str, value: Any) -> Break:
    def change(path: Path) -> None:
        with np.load(path) as stored:
            content = dict(stored) | {name: value}
        with path.open("wb") as file:
            np.savez(file, **content)

    return change


ARRAYS: dict[str, Break] = {
    "mass belongs to other heads": array("mass", np.zeros((2, 9, 9), np.float32)),
    "mass is text": array("mass", ["x"]),
    "mass is flat": array("mass", np.zeros(3, np.float32)),
    "names are numbers": array("image_names", np.arange(2)),
    "names are objects": array("image_names", np.array([{}], dtype=object)),
    "several numbers of registers": array("num_register_tokens", np.arange(3)),
}
DIAGNOSIS: dict[str, Break] = {
    "a threshold is text": member("thresholds>nop_max", "x"),
    "thresholds are text": member("thresholds", "x"),
    "the step is text": member("step", "x"),
    "the tokens are text": member("num_tokens", "x"),
}
RUN = [
    (name, how)
    for name, kinds in {
        STEP: ANY | TABLE,
        EARLIER: ANY | {"another step": column("step", 6)},
        BLOCKS: ANY,
        "summary.json": ANY | JSON,
        "config.yaml": CONFIG,
        "metrics.csv": CSV | {"a folder": folder},
    }.items()
    for how in kinds.items()
]
OF_DIAGNOSIS = [
    (name, how)
    for name, kinds in {
        "heads.parquet": ANY | TABLE,
        "blocks.parquet": ANY,
        "per_image.npz": ANY | ARRAYS,
        "sensitivity.parquet": ANY | {"the rule is a number": column("rule", 3), "no own row": column("steps", 1)},
        "summary.json": ANY | JSON | DIAGNOSIS,
        "diagnosis.json": DIAGNOSIS,
        "figures/stripes.csv": {
            "text": lambda path: path.write_text(path.read_text() + "0,0,99,x,x\n"),
            "a row is missing": lambda path: path.write_text(path.read_text().rpartition("\n0")[0]),
        },
    }.items()
    for how in kinds.items()
]


@pytest.fixture(scope="module")
def diagnosed(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("diagnosed") / "out"
    run("diagnose", "--run", finished, "--out", out, "--limit", "2").succeeded()
    return out


def refused_by_name(source: Path, root: Path, name: str, damage: Break) -> None:
    """Reading a damaged copy is refused with a message that names the file."""
    shutil.copytree(source, root / "broken", symlinks=True)
    damage(root / "broken" / name)
    with pytest.raises(UserError) as error:
        read_run(root / "broken")
    assert name.split("/step_", maxsplit=1)[0] in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(("name", "how"), RUN, ids=lambda value: value if isinstance(value, str) else value[0])
def test_a_damaged_file_of_a_run_is_named(name: str, how: tuple[str, Break], finished: Path, tmp_path: Path) -> None:
    refused_by_name(finished, tmp_path, name, how[1])


@pytest.mark.parametrize(("name", "how"), OF_DIAGNOSIS, ids=lambda value: value if isinstance(value, str) else value[0])
def test_a_damaged_file_of_a_diagnosis_is_named(
    name: str, how: tuple[str, Break], diagnosed: Path, tmp_path: Path
) -> None:
    refused_by_name(diagnosed, tmp_path, name, how[1])


def test_a_report_leaves_the_damaged_runs_out(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "runs" / "good", symlinks=True)
    for name, file in {"bad1": STEP, "bad2": "summary.json"}.items():
        shutil.copytree(finished, tmp_path / "runs" / name, symlinks=True)
        ANY["half"](tmp_path / "runs" / name / file)
    outcome = report(tmp_path / "out", tmp_path / "runs", "--maps", "0").succeeded()
    for file in (f"bad1/{STEP}", "bad2/summary.json"):
        assert any(line.startswith("Left out, damaged: ") and file in line for line in outcome.err.splitlines())
        assert file in (tmp_path / "out" / "index.html").read_text()
    assert list(json.loads((tmp_path / "out" / "report.json").read_text())["runs"]) == ["good"]


def test_damaged_runs_alone_give_no_report(finished: Path, tmp_path: Path) -> None:
    for name in ("bad1", "bad2"):
        shutil.copytree(finished, tmp_path / name, symlinks=True)
        ANY["half"](tmp_path / name / STEP)
    with pytest.raises(UserError, match="none of 2 runs can be read"):
        read_runs([str(tmp_path)])


OVERWRITTEN: dict[str, tuple[str, ...]] = {
    "diagnose": ("parts/notes.txt", "parts/mine.npz"),
    "report": ("figures/mine.pdf", "tables/notes.md"),
    "intervene": ("parts/mine.json", "figures/mine.png", "diagnosis/notes.txt"),
}


@pytest.mark.parametrize("command", OVERWRITTEN)
def test_overwrite_removes_only_what_the_command_wrote(command: str, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    commands: dict[str, list[str | Path]] = {
        "diagnose": ["diagnose", "--run", finished, "--limit", "2"],
        "report": ["report", finished, "--maps", "0"],
        "intervene": [
            "intervene",
            "--run",
            finished,
            "--limit",
            "2",
            "--heads",
            "1:0",
            "--edits",
            "zero_value",
            "--control_images",
            "2",
        ],
    }
    run(*commands[command], "--out", out).succeeded()
    for name in OVERWRITTEN[command]:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    run(*commands[command], "--out", out, "--overwrite").succeeded()
    assert [(out / name).read_text() for name in OVERWRITTEN[command]] == ["mine"] * len(OVERWRITTEN[command])


@pytest.mark.parametrize("name", ["diagnosis.json", "summary.json"])
@pytest.mark.parametrize("how", ["half", "empty"])
def test_a_damaged_file_of_an_earlier_diagnosis_is_named(
    name: str, how: str, finished: Path, diagnosed: Path, tmp_path: Path
) -> None:
    shutil.copytree(diagnosed, tmp_path / "out")
    ANY[how](tmp_path / "out" / name)
    outcome = run("diagnose", "--run", finished, "--out", tmp_path / "out", "--limit", "2")
    assert outcome.code == 2
    assert name in outcome.err
    assert len(outcome.err.splitlines()) == 1

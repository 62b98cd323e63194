"""A report leaves out damaged runs and diagnoses, names the damaged file in one line, and shows the others."""

import json
import shutil
from pathlib import Path

import pytest
from damaging import ANY, ARRAYS, CONFIG, CSV, DIAGNOSIS, JSON, TABLE, Break, column, folder
from reporting import report
from running import run

from sinkablate.errors import UserError
from sinkablate.report.reading import read_run
from sinkablate.report.runs import read_runs

STEP, BLOCKS = "diagnostics/step_00000006.parquet", "diagnostics/blocks/step_00000006.parquet"
EARLIER = "diagnostics/step_00000002.parquet"
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


def assert_damage_is_named(source: Path, root: Path, name: str, damage: Break) -> None:
    """Check that reading a damaged copy is refused with a message that names the file."""
    shutil.copytree(source, root / "broken", symlinks=True)
    damage(root / "broken" / name)
    with pytest.raises(UserError) as error:
        read_run(root / "broken")
    assert name.split("/step_", maxsplit=1)[0] in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(("name", "how"), RUN, ids=lambda value: value if isinstance(value, str) else value[0])
def test_a_damaged_file_of_a_run_is_named(name: str, how: tuple[str, Break], finished: Path, tmp_path: Path) -> None:
    assert_damage_is_named(finished, tmp_path, name, how[1])


@pytest.mark.parametrize(("name", "how"), OF_DIAGNOSIS, ids=lambda value: value if isinstance(value, str) else value[0])
def test_a_damaged_file_of_a_diagnosis_is_named(
    name: str, how: tuple[str, Break], diagnosed: Path, tmp_path: Path
) -> None:
    assert_damage_is_named(diagnosed, tmp_path, name, how[1])


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

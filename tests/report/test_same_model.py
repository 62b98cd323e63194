"""A report shows each model once, wherever its run, its diagnosis and its interventions are stored."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from reporting import report

from sinkablate.report.merging import with_diagnoses
from sinkablate.report.run import OWN_IMAGES, Run, models
from sinkablate.report.runs import read_runs


def fit(name: str, **more: object) -> Run:
    values = {"name": name, "path": Path("/runs") / name, "kind": "run", "variant": "gate", "seed": "0"}
    return Run(**values | {"finished": True, "step": 4} | more)  # type: ignore[arg-type]


def diagnosis(name: str, weights: str, images: str = OWN_IMAGES, **more: object) -> Run:
    summary = {"weights": weights, "images": images}
    return fit(name, **{"kind": "diagnosis", "seed": "", "summary": summary} | more)


TABLE = pl.DataFrame({"rule": ["causal"]})
LAST = "/runs/a/checkpoints/last.ckpt"


def test_a_diagnosis_is_part_of_its_run_and_one_on_other_images_is_not_another_model() -> None:
    run = fit("a")
    (merged,) = with_diagnoses([diagnosis("d", LAST, sensitivity=TABLE), run])
    assert (merged.name, merged.kind) == ("a", "run")
    assert merged.sensitivity is TABLE
    shown = with_diagnoses([run, diagnosis("e", LAST, "photos"), diagnosis("f", LAST, "photos", sensitivity=TABLE)])
    assert [run.name for run in shown] == ["a", "e (a at step 4 on photos)"]
    assert shown[1].sensitivity is TABLE
    assert models(shown) == [run]


def test_a_diagnosis_belongs_to_the_run_of_its_configuration_wherever_that_is() -> None:
    runs = [fit("a", run_id="1"), fit("b", run_id="2")]
    moved = diagnosis("d", "/elsewhere/x/checkpoints/last.ckpt", run_id="2", sensitivity=TABLE)
    replaced = diagnosis("e", LAST, run_id="3", sensitivity=TABLE)  # another run was in the directory
    assert [(run.name, run.sensitivity is TABLE) for run in with_diagnoses([*runs, moved, replaced])] == [
        ("a", False),
        ("b", True),
        ("e", True),
    ]
    rerun = [fit("a", run_id="1"), fit("b", run_id="1")]  # one configuration: the directory decides
    of_second = diagnosis("d", "/runs/b/checkpoints/last.ckpt", run_id="1", sensitivity=TABLE)
    assert [run.sensitivity is TABLE for run in with_diagnoses([*rerun, of_second])] == [False, True]


def test_two_diagnoses_of_the_same_weights_are_one_model() -> None:
    first = diagnosis("d", "w.safetensors", "photos", step=None)
    second = diagnosis("e", "w.safetensors", "photos", step=None, sensitivity=TABLE)
    (merged,) = with_diagnoses([first, second])
    assert (merged.name, merged.sensitivity is TABLE) == ("d", True)
    others = with_diagnoses([first, diagnosis("e", "w.safetensors", "drawings", step=None)])
    assert [run.name for run in others] == ["d", "e (d on drawings)"]
    assert len(models(others)) == 1
    untrained = [diagnosis(name, "random", "photos", step=None) for name in ("d", "e")]
    assert len(models(with_diagnoses(untrained))) == 2
    assert len(models(with_diagnoses([first, diagnosis("e", "v.safetensors", "photos", step=None)]))) == 2


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ({"test_time_registers": {"count": 1, "choice": "largest"}}, "e ({}, 1 test-time register)"),
        ({"test_time_registers": {"count": 2, "choice": "random"}}, "e ({}, 2 test-time registers of random neurons)"),
        ({"preprocessing": {"input_size": [3, 56, 84]}}, "e ({})"),
        ({"position_embedding": {"method": "dinov2"}}, "e ({})"),
    ],
)
def test_another_treatment_or_size_is_not_merged(setting: dict[str, object], name: str) -> None:
    """Its numbers would otherwise be shown as those of the model without it."""
    plain = diagnosis("d", "w.safetensors", "photos", step=None)
    changed = {"weights": "w.safetensors", "images": "photos"} | setting
    shown = with_diagnoses([plain, diagnosis("e", "w.safetensors", step=None, summary=changed, sensitivity=TABLE)])
    assert [run.name for run in shown] == ["d", name.format("d on photos")]
    if "test_time_registers" in setting:
        of_run = {"weights": LAST, "images": OWN_IMAGES} | setting
        shown = with_diagnoses([fit("a"), diagnosis("e", LAST, summary=of_run, sensitivity=TABLE)])
        assert [run.name for run in shown] == ["a", name.format("a at step 4")]
        assert shown[0].sensitivity is None


@pytest.mark.slow
def test_a_tree_that_was_moved_or_copied_shows_each_model_once(ablated: Path, tmp_path: Path) -> None:
    for name in ("runs/gate_reg-s0", "runs/gate-s0", "edits"):
        shutil.copytree(ablated / name, tmp_path / "moved" / name, symlinks=True)
    shutil.copytree(ablated / "diagnoses" / "first", tmp_path / "moved" / "out" / "gate_reg-s0")
    moved = [str(tmp_path / "moved"), str(tmp_path / "moved" / "edits")]
    runs, notes = read_runs(moved)
    assert [run.name for run in runs] == ["gate-s0", "gate_reg-s0"]
    assert runs[1].sensitivity is not None
    assert runs[1].edits is not None
    assert notes == []
    both = [str(ablated / "runs" / "gate_reg-s0"), *moved]
    runs, notes = read_runs(both)
    assert [run.name for run in runs] == ["gate_reg-s0", "gate-s0"]
    assert runs[0].edits is not None
    assert notes == [f"Left out, a copy of {both[0]}: {tmp_path / 'moved' / 'runs' / 'gate_reg-s0'}"]


@pytest.mark.slow
def test_runs_of_one_name_get_longer_names_and_each_is_shown_once(ablated: Path, tmp_path: Path) -> None:
    run, other = ablated / "runs" / "gate-s0", tmp_path / "other" / "gate-s0"
    shutil.copytree(ablated / "runs" / "gate-s1", other)
    report(tmp_path / "out", run, other, run / "", "--maps", "0").succeeded()
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(written["runs"]) == {"runs/gate-s0", "other/gate-s0"}

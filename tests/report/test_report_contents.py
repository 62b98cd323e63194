"""The page of a report shows the measured numbers, whichever way they were stored."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sinkablate.diagnose.maps import example_maps
from sinkablate.diagnostics.patches import patch_grid
from sinkablate.figures.sinks import LABEL_COLORS
from sinkablate.report.across_runs import labels_by_type
from sinkablate.report.contents import page_run
from sinkablate.report.events import VERDICTS, sinks, sinks_by_type, steps_of_labels, types_caveat
from sinkablate.report.frames import some_runs
from sinkablate.report.held_maps import held_maps
from sinkablate.report.reading import read_run
from sinkablate.report.rounding import rounded
from sinkablate.report.run import Run
from sinkablate.report.runs import read_runs
from sinkablate.report.tables import types_sheet

RULES = ("causal", "adaptive", "lejepa", "def1_0.5", "effective_causal")


@pytest.fixture(scope="module")
def gated(ablated: Path) -> Run:
    return read_run(ablated / "runs" / "gate_reg-s0")


@pytest.fixture(scope="module")
def diagnosed(ablated: Path) -> Run:
    return read_run(ablated / "diagnoses" / "first")


@pytest.mark.parametrize(
    ("value", "short"),
    [
        (0.123456, 0.1235),
        (123456.0, 123500.0),
        (-9.99951, -10.0),
        (0.0, 0.0),
        (1e-30, 1e-30),
        (float("nan"), None),
        (float("inf"), None),
        (0.1 + 0.2, 0.3),
    ],
)
def test_numbers_keep_four_digits(value: float, short: float | None) -> None:
    assert rounded([value]) == [short]


def test_rounding_moves_a_number_by_half_a_digit_at_most() -> None:
    values = np.exp(np.random.default_rng(0).uniform(-20, 20, 1000))
    short_values = np.array(rounded(values), dtype=float)
    assert np.abs(short_values / values - 1).max() <= 5e-4
    assert max(len(repr(value)) for value in short_values.tolist()) <= 11  # 485200000.0


@pytest.mark.parametrize(
    ("patches", "height", "width", "grid"),
    [(16, 28, 28, (4, 4)), (256, 224, 224, (16, 16)), (8, 28, 56, (2, 4)), (7, 28, 28, (1, 7)), (31, 1, 1, (1, 31))],
)
def test_patches_are_arranged_as_in_their_image(patches: int, height: int, width: int, grid: tuple[int, int]) -> None:
    assert patch_grid(patches, height, width) == grid


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_sinks_per_image_are_those_that_fit_logged(rule: str, gated: Run) -> None:
    prefix = "sink" if rule == "causal" else f"sink/{rule}"
    logged = json.loads((gated.path / "summary.json").read_text()) | dict(
        gated.metrics.filter(pl.col("sink/events").is_not_null())[-1].rows(named=True)[0]
    )  # type: ignore[union-attr]
    assert sinks(gated, rule) == pytest.approx({name: logged[f"{prefix}/{name}"] for name in VERDICTS})
    last = steps_of_labels(gated, rule)
    assert last is not None
    assert {name: last[name][-1] for name in LABEL_COLORS} == pytest.approx(
        {name: value for name, value in sinks(gated, rule).items() if name != "undefined"}
    )


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["causal", "adaptive"])
def test_token_types_share_out_the_events(rule: str, gated: Run, diagnosed: Run) -> None:
    for run in (gated, diagnosed):
        by_type = sinks_by_type(run, rule)
        assert {label: sum(shares.values()) for label, shares in by_type.items()} == pytest.approx(
            {label: value for label, value in sinks(run, rule).items() if label in LABEL_COLORS}
        )
    assert sum(sinks(gated, rule).values()) > 0
    assert sinks(gated, rule) == pytest.approx(sinks(diagnosed, rule))  # the same checkpoint on the same images


@pytest.mark.slow
def test_a_diagnosis_and_a_run_have_the_same_maps(gated: Run, diagnosed: Run) -> None:
    assert gated.heads is not None
    made, held = example_maps(gated.path, gated.heads, "adaptive", 4, 2), held_maps(diagnosed)
    assert held is not None
    assert made.heads == held.heads
    assert made.kinds == held.kinds == ("cls", *["register"] * 4, *["patch"] * 16)
    assert made.names[0] == held.names[0]
    np.testing.assert_allclose(made.received[:, 0], held.received[:, 0], atol=1e-6)
    np.testing.assert_allclose(made.received.sum(axis=-1), 1, atol=1e-5)
    assert made.patches(0, 1).shape == (4, 4)
    assert sum(made.shares(0, 1).values()) == pytest.approx(1, abs=1e-5)
    column, kind, most = made.strongest(0, 1)
    assert (most, kind) == (made.received[0, 1].max(), made.kinds[column])


@pytest.mark.slow
def test_the_images_of_a_diagnosed_head_are_those_with_the_most_mass(diagnosed: Run) -> None:
    with np.load(diagnosed.path / "per_image.npz") as stored:
        mass, names = stored["mass"], stored["image_names"].tolist()
    named = page_run(diagnosed, None, {})["busiest_images"]
    for head, (indices, values) in enumerate(zip(named["indices"], named["mass"], strict=True)):
        of_head = mass.reshape(len(mass), -1)[:, head]
        best = np.argsort(-of_head, kind="stable")[:3]
        assert [named["names"][index] for index in indices] == [names[index] for index in best]
        assert values == pytest.approx(np.sort(of_head)[::-1][:3], rel=5e-3)


@pytest.mark.slow
def test_folders_are_searched_and_interventions_are_not(ablated: Path, tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "run").symlink_to(ablated / "runs" / "gate-s0")
    edits = tmp_path / "edits"
    edits.mkdir()
    (edits / "intervention.json").write_text("{}")
    (edits / "diagnosis").symlink_to(ablated / "diagnoses" / "first")
    assert [run.kind for run in read_runs([str(tmp_path)])[0]] == ["run"]
    assert [run.kind for run in read_runs([str(edits)])[0]] == ["diagnosis"]


def configured(folder: Path, variant: str, seed: int) -> Path:
    """Create a run that has just started, in a directory named like a cell of a sweep."""
    run_dir = folder / hashlib.sha256(f"{variant}{seed}".encode()).hexdigest()[:12]
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(f"variant: {variant}\nseed_everything: {seed}\n")
    return run_dir


def test_runs_of_a_folder_are_sorted_and_those_given_one_by_one_are_not(tmp_path: Path) -> None:
    directories = {
        (variant, seed): configured(tmp_path / "cells", variant, seed)
        for variant in ("gate", "baseline")
        for seed in (10, 2, 0)
    }
    ordered = [f"{variant}-s{seed}" for variant in ("baseline", "gate") for seed in (0, 2, 10)]
    assert [run.name for run in read_runs([str(tmp_path)])[0]] == ordered
    given = [("gate", 10), ("baseline", 2), ("gate", 0)]
    assert [run.name for run in read_runs([str(directories[run]) for run in given])[0]] == [
        f"{v}-s{s}" for v, s in given
    ]
    first, *others = ordered
    both, _ = read_runs([str(directories["gate", 10]), str(tmp_path)])
    assert [run.name for run in both] == ["gate-s10", first, *others[:-1]]


@pytest.mark.parametrize(("count", "message"), [(10, ""), (11, "reading 11 runs …\n")])
def test_many_runs_are_announced(count: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(count):
        configured(tmp_path, "gate", seed)
    read_runs([str(tmp_path)])
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(("variants", "seeds", "kept"), [(2, 15, 30), (40, 1, 30), (36, 5, 30), (4, 10, 30), (3, 2, 6)])
def test_a_figure_of_many_runs_shows_an_even_choice(variants: int, seeds: int, kept: int) -> None:
    runs = [
        Run(name=f"{variant}-s{seed}", path=Path(), kind="run", variant=str(variant), seed=str(seed), finished=True)
        for variant in range(variants)
        for seed in range(seeds)
    ]
    shown, message = some_runs(runs)
    assert message == ("" if len(runs) <= 30 else f"30 of {len(runs)} runs")
    assert len(shown) == len({run.name for run in shown}) == kept
    assert shown == [run for run in runs if run in shown]
    of_variant = [sum(run.variant == str(variant) for run in shown) for variant in range(variants)]
    assert max(of_variant) - min(of_variant) <= 1
    assert all(run.seed == "0" for run in shown) or variants <= 30


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["causal", "adaptive"])
def test_guessed_token_types_are_noted(rule: str, gated: Run, diagnosed: Run) -> None:
    for label, shares in sinks_by_type(gated, rule).items():
        assert shares == pytest.approx(sinks_by_type(diagnosed, rule)[label])  # both are counted event by event
    old = replace(gated, name="old", summary={})
    guess = "all events of a head are counted for its most common token type"
    for runs, caveat in ([gated, diagnosed], ""), ([old], guess), ([gated, old], f"in 1 of 2 runs, {guess}"):
        assert types_caveat(runs, rule) == types_caveat(runs) == caveat
        assert types_sheet(runs, rule).title.endswith(caveat or f"rule {rule}")
        figure, _ = labels_by_type(runs, rule) or pytest.fail("no figure")
        assert figure.legends[0].get_title().get_text() == caveat

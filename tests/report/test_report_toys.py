"""The figures of the toys from the runs of a report."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from reporting import report
from running import CONFIGS, run

from sinkablate.report.run import Run
from sinkablate.report.runs import read_runs
from sinkablate.report.toys import arms, broadcast_layers, formation, values_and_spectrum

SMALL = ("--model.toy.tokens=6", "--model.toy.width=8", "--data.batch_size=8", "--data.eval_size=16", "--data.steps=2")
FEW = ("--trainer.max_epochs=1", "--diagnostics.images=8", "--trainer.accelerator=cpu", "--wandb.mode=disabled")
PATHWAY = "--model.toy.pathway.kind=global"
TRAINED = {
    "nop/g0": ("--model.toy.supervise=update", "--model.toy.gamma=0"),
    "nop/g1": ("--model.toy.supervise=update", "--model.toy.gamma=1"),
    "broadcast/none": (),
    "broadcast/penalty": (
        "--model.toy.pathway.kind=global",
        "--model.common_mode.weight=1",
        "--model.common_mode.skip=0",
    ),
}
"""Task and name of a run -> its options."""
EDITED = ("--heads", "1:0", "--edits", "zero_value,pathway", "--limit", "4", "--control_images", "2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toys of two steps, two arms of the broadcast toy with edits of their second block."""
    root = tmp_path_factory.mktemp("toys")
    for name, options in TRAINED.items():
        task, _, arm = name.partition("/")
        config = ("--config", CONFIGS / "toy" / f"{task}.yaml", "--run_dir", root / "runs" / name)
        run("fit", *config, *SMALL, *FEW, *options).succeeded()
        if task == "broadcast":
            edits = EDITED if arm != "none" else [word.removesuffix(",pathway") for word in EDITED]
            run("intervene", "--run", root / "runs" / name, "--out", root / "edits" / arm, *edits).succeeded()
    return root


@pytest.mark.heavy
def test_the_figures_of_the_toys_are_drawn_from_runs_and_their_edits(trained: Path) -> None:
    edits = sorted((trained / "edits").iterdir())
    outcome = report(
        trained / "out", trained / "runs", *edits, "--paper", "--maps", "0", "--rule", "causal"
    ).succeeded()
    note = "labeled by rule adaptive, that of the intervention; the other figures use rule causal"
    assert note in outcome.err
    assert note in (trained / "out" / "report.json").read_text()
    paper = trained / "out" / "paper"
    for name in ("figure_2_nop_toy", "figure_3_broadcast_toy", "figure_revision_7b_pathway_arms"):
        assert name not in outcome.err
        assert {path.suffix for path in paper.glob(f"{name}.*")} == {".pdf", ".png", ".csv"}
    nop = pl.read_csv(paper / "figure_2_nop_toy.csv")
    assert nop["model"].unique(maintain_order=True).to_list() == ["gamma = 0, no sink", "gamma = 1, no sink"]
    table = pl.read_csv(paper / "figure_revision_7b_pathway_arms.csv")
    of_arms = {arm: set(rows["edit"]) for (arm,), rows in table.group_by("arm")}
    of_pathway = {"zero_value", "pathway_zero", "pathway_donor"}
    assert of_arms == {"attention alone": {"zero_value"}, "pathway and penalty": of_pathway}
    rows = pl.read_parquet(trained / "edits" / "penalty" / "heads.parquet").filter(block=1, edit="pathway_zero")
    drawn = table.filter(pl.col("arm") == "pathway and penalty", pl.col("edit") == "pathway_zero")
    assert drawn["ratio"].to_list() == pytest.approx((rows["loss_edited"] / rows["loss"]).to_list())


@pytest.mark.heavy
def test_one_model_or_one_arm_is_no_figure(trained: Path) -> None:
    runs, _ = read_runs([str(trained / "runs" / "nop" / "g0"), str(trained / "edits" / "penalty")])
    assert values_and_spectrum(runs) is None
    assert broadcast_layers(runs) is None
    assert arms(runs) is None


def toy(value: float, seed: int, formed: int, *, key: str = "p_nop", supervise: str = "output") -> Run:
    steps = [0, 10, 20, 30]
    metrics = {"step": steps, "toy/attention_nop": [1.0 if step >= formed else 0.0 for step in steps], "toy/mass": 0.4}
    config = {"task": "toy", "model.toy.task": "nop", "model.toy.supervise": supervise, f"model.toy.{key}": value}
    fields = {"kind": "run", "variant": "nop", "finished": True, "path": Path()}
    return Run(name=f"{value}-{seed}", seed=str(seed), config=config, metrics=pl.DataFrame(metrics), **fields)


def test_the_step_of_formation_is_shown_against_p_with_intervals_over_seeds() -> None:
    runs = [toy(0.1, 0, 30), toy(0.1, 1, 10), toy(0.9, 0, 10), toy(0.9, 1, 10)]
    drawn = formation([*runs, toy(0.1, 0, 20, key="gamma", supervise="update")])
    assert drawn is not None
    rows = drawn[1].filter(varied="p", quantity="formed_step")
    assert rows.select("value", "runs", "mean").rows() == [(0.1, 2, 20.0), (0.9, 2, 10.0)]
    assert rows["low"][0] < 20 < rows["high"][0]
    assert drawn[1]["varied"].unique().to_list() == ["p"]  # one value of gamma is no curve
    assert drawn[1].filter(quantity="final_mass")["mean"].to_list() == pytest.approx([0.4, 0.4])


def test_runs_that_differ_in_anything_else_are_not_averaged() -> None:
    longer = [replace(run, config=run.config | {"data.steps": 9}) for run in (toy(0.1, 0, 40), toy(0.9, 0, 40))]
    runs = [toy(0.1, 0, 10), toy(0.1, 1, 10), toy(0.9, 0, 10)]
    drawn = formation([*longer, *runs])
    assert drawn is not None
    assert drawn[1].filter(quantity="formed_step").select("value", "runs", "mean").rows() == [
        (0.1, 2, 10.0),
        (0.9, 1, 10.0),
    ]
    assert "2 runs with other settings omitted" in drawn[0].get_suptitle()


def test_runs_of_one_value_give_no_figure() -> None:
    assert formation([toy(0.1, 0, 30), toy(0.1, 1, 10)]) is None

"""The opening sentences of a report, and how runs of one model or one variant are told apart."""

from pathlib import Path

import polars as pl
import pytest

from sinkablate.errors import UserError
from sinkablate.report.ablation import EVENTS, ablation, refuse_collisions, run_table
from sinkablate.report.finding import comparison_sentence, finding, length_sentence, sinks_sentence
from sinkablate.report.run import Run, kind_names
from sinkablate.report.runs import with_overrides
from sinkablate.report.tables import runs_sheet


def heads(broadcast: int, other: int = 0) -> pl.DataFrame:
    """Two blocks of one head on ten images; block 0 has an event on each of them."""
    labels = {"nop": [0, 0], "broadcast": [10, broadcast], "other": [0, other], "undefined": [0, 0]}
    columns = {f"causal_{label}": counts for label, counts in labels.items()}
    frequency = [1.0, (broadcast + other) / 10]
    return pl.DataFrame(
        {"block": [0, 1], "head": [0, 0], "images": [10, 10], "token_type": ["patch", "cls"]}
        | {"causal_frequency": frequency}
        | columns
    )


def model(name: str, variant: str = "gate", seed: str = "0", **more: object) -> Run:
    values = {"name": name, "path": Path("/runs") / name, "kind": "run", "variant": variant, "seed": seed}
    return Run(**values | {"finished": True} | more)  # type: ignore[arg-type]


def test_a_report_without_sinks_says_so() -> None:
    none = [model("a", heads=heads(0)), model("b", heads=heads(0))]
    assert sinks_sentence(none, "causal").startswith("No head sinks: none of the 2 models has a single sink event")
    assert sinks_sentence(none[:1], "causal").startswith("No head sinks: a does not have a single sink event")
    assert sinks_sentence([model("c")], "causal") == "No sinks were measured in these runs."


def test_the_sinks_of_one_model_and_of_several() -> None:
    assert sinks_sentence([model("a", heads=heads(3, 1))], "causal") == (
        "In a, 1 of 1 heads in blocks ≥ 1 sink on at least one image by the rule causal: 0.4 sink events per image "
        "(labels: 75 % broadcast, 25 % other; sink tokens: 100 % CLS)."
    )
    both = [model("a", heads=heads(0)), model("b", heads=heads(5))]
    assert sinks_sentence(both, "causal").startswith(
        "1 of 2 models have attention sinks by the rule causal: 0 to 0.5 sink events per image in blocks ≥ 1"
    )


@pytest.mark.parametrize(("shift", "sentence"), [(1.0, "better: gate +"), (0.0, "no difference from none is")])
def test_a_difference_is_named_only_when_it_is_established(shift: float, sentence: str) -> None:
    noise = [0.01, -0.02, 0.015, 0.0, -0.01, 0.02]
    rows = [
        {"variant": variant, "seed": seed, "acc": value + (shift if variant == "gate" else 0) + other}
        for seed, value in enumerate(noise)
        for variant, other in (("none", 0.0), ("gate", noise[(2 * seed + 1) % 6] / 5))
    ]
    made = ablation(
        pl.DataFrame(rows),
        "acc",
        ["variant"],
        primary="paired",
        baseline={"variant": "none"},
        lower_is_better=False,
        margin=None,
        detect=None,
    )
    text = comparison_sentence(made.comparison)
    assert sentence in text
    assert ("better: gate" in text) == (shift > 0)


def test_runs_of_one_variant_and_seed_are_named_by_what_differs() -> None:
    keys = {"model.optim.lr": 0.1, "data.seed": 0, "run_dir": "a"}
    runs = [model("a", config=keys), model("b", config=keys | {"model.optim.lr": 0.2, "run_dir": "b"})]
    assert [run.variant for run in with_overrides(runs)] == ["gate, lr=0.1", "gate, lr=0.2"]
    assert [run.variant for run in with_overrides([runs[0], model("c", seed="1", config=keys)])] == ["gate", "gate"]


def test_runs_that_nothing_tells_apart_are_refused_with_the_flags_of_report() -> None:
    table = run_table(with_overrides([model("a", heads=heads(1)), model("b", heads=heads(1))]), ["variant"], "causal")
    assert table[EVENTS].to_list() == [0.1, 0.1]
    with pytest.raises(UserError, match=r"a and b both have variant=gate, seed=0; .* --factors variant,KEY"):
        refuse_collisions(table, ["variant"])


def test_the_null_token_of_the_toy_is_not_called_a_register() -> None:
    toy = model("t", config={"task": "toy", "model.toy.task": "nop", "model.toy.registers": 0})
    assert kind_names([toy])["register"] == "null token"
    assert kind_names([toy, model("a")])["register"] == "register or null token"


@pytest.mark.parametrize(
    ("summaries", "sentence"),
    [
        ([{"steps": 4, "epochs": 1}, {"steps": 4, "epochs": 1}], []),
        ([{"steps": 4, "epochs": 1}, {"steps": 200, "epochs": 1}], ["different numbers of steps, 4 to 200"]),
        ([{"steps": 4, "epochs": 2}, {"steps": 4, "epochs": 1}], ["different numbers of epochs, 1 to 2"]),
        ([{"steps": 4}, {}], []),
    ],
)
def test_runs_of_different_length_are_compared_with_a_warning(
    summaries: list[dict[str, int]], sentence: list[str]
) -> None:
    runs = [model(str(number), summary=summary) for number, summary in enumerate(summaries)]
    warnings = length_sentence(runs)
    assert [part in warning for part, warning in zip(sentence, warnings, strict=True)] == [True] * len(sentence)
    assert all(warning in finding(runs, "causal", None, None) for warning in warnings)


def test_an_unfinished_run_does_not_count_as_one_of_another_length() -> None:
    runs = [model("a", summary={"steps": 4}), model("b", summary={"steps": 2}, finished=False)]
    assert length_sentence(runs) == []
    assert [row[4] for row in runs_sheet(runs, None, "causal").rows] == ["4", "2"]

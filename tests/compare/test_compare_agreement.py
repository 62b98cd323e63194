"""Where the paired test and Welch's test disagree, and the words for metrics with and without a better direction."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from run_tables import as_json, compared, factorial_table, table

from sinkablate.compare.analysis import compare
from sinkablate.compare.directions import lower_is_better

ADE20K = {
    ("none", 0): (16.59, 0.55, (-1, 0, 1)),
    ("none", 4): (18.71, 0.20, (-1, 0, 1)),
    ("elementwise", 0): (18.57, 0.38, (1, 0, -1)),
    ("headwise", 0): (18.51, 0.03, (-1, 0, 1)),
    ("elementwise", 4): (19.99, 0.62, (0, 1, -1)),
    ("headwise", 4): (19.92, 0.31, (1, 0, -1)),
}
"""Published mIoU of three seeds per variant: mean, population standard deviation, and an order of the seeds.

The values of the seeds are not published. They are chosen here to have these means and deviations, in orders for which
pairs by seed vary more than independent runs.
"""


def published() -> pl.DataFrame:
    """The published table, one row per seed."""
    rows = [
        (gate, registers, seed, (mean + sd * np.sqrt(1.5) * order[seed]) / 100)
        for (gate, registers), (mean, sd, order) in ADE20K.items()
        for seed in range(3)
    ]
    return pl.DataFrame(rows, schema=["gate", "registers", "seed", "ade20k/miou"], orient="row")


def test_the_published_table_is_complementary_by_welch_only() -> None:
    options = {"metric": "ade20k/miou", "factors": ["gate", "registers"]}
    welch = compare(published(), **options, primary="welch")
    (pair,) = (row for row in welch.combinations if row.first == "gate=headwise")
    assert pair.complementary == "supported"
    assert pair.p_complementary == pytest.approx(0.046, abs=2e-3)
    for estimate, numbers in (
        (pair.over_first, (0.0141, 0.0046, 0.0235)),
        (pair.over_second, (0.0121, 0.0042, 0.0200)),
    ):
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx(numbers, abs=2e-4)
    assert pair.over_second_paired.low == pytest.approx(-0.0034, abs=1e-4)
    (line,) = (
        line for line in welch.sentences if "disagree about gate=headwise and registers=4: complementary" in line
    )
    assert "complementary is supported (+0.0141 [+0.004" in line
    assert "by Welch's test, which is primary here; complementary is not supported" in line
    assert line.endswith("by the paired test.")
    paired = compare(published(), **options)
    (pair,) = (row for row in paired.combinations if row.first == "gate=headwise")
    assert pair.complementary == "not supported"
    (line,) = (
        line for line in paired.sentences if "disagree about gate=headwise and registers=4: complementary" in line
    )
    assert "complementary is not supported" in line.split(" by the paired test, which is primary here; ")[0]


def test_tests_that_agree_or_have_no_inference_do_not_disagree() -> None:
    frame = table()
    for rows, options in (
        (frame, {}),
        (frame, {"primary": "welch", "pair_by": None}),
        (frame.filter(pl.col("seed") == 0), {}),
    ):
        comparison = compare(rows, metric="val/acc1", factors=["gate", "registers"], **options)
        assert not any("disagree" in line for line in comparison.sentences)


def test_the_tests_disagree_about_a_difference_that_only_pairs_show() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 1, 6)
    rows = [
        (gate, seed, shared[seed] + 0.1 * (gate == "on") + rng.normal(0, 0.01))
        for gate in ("off", "on")
        for seed in range(6)
    ]
    frame = pl.DataFrame(rows, schema=["gate", "seed", "acc"], orient="row")
    (line,) = (line for line in compare(frame, metric="acc", factors=["gate"]).sentences if "disagree" in line)
    assert line.startswith("The two tests disagree about gate=on: better (+0.09 ")
    assert "no difference is established" in line.split("; ")[1]


def test_the_tests_disagree_about_an_equivalence_that_only_pairs_show() -> None:
    """Seeds differ by 1 and the cells by .001: only differences by seed lie within the margin."""
    rows = [(gate, seed, seed + 0.001 * (seed % 2) * (gate == "on")) for gate in ("off", "on") for seed in range(6)]
    frame = pl.DataFrame(rows, schema=["gate", "seed", "acc"], orient="row")
    (line,) = (
        line for line in compare(frame, metric="acc", factors=["gate"], margin=0.01).sentences if "disagree" in line
    )
    assert line.startswith("The two tests disagree about gate=on: equivalent within ±0.01 (TOST, p")
    assert line.endswith("not shown to be equivalent within ±0.01 by Welch's test.")


@pytest.mark.parametrize(
    ("metric", "lower"),
    [
        ("val/acc1", False),
        ("val/acc5", False),
        ("knn/acc@1", False),
        ("segmentation/miou", False),
        ("segmentation/miou_best", False),
        ("segmentation/miou_best@random", False),
        ("knn/acc1/cls k=10", False),
        ("knn/acc1@pixels", False),
        ("linear/acc1/patch@random", False),
        ("quantization/kl/w4a4_token", True),
        ("quantization/kl_low", True),
        ("quantization/acc1_drop/w4a4_static_p99.99", True),
        ("quantization/cosine/w8", False),
        ("quantization/quantized_layers/fp32", None),
        ("linear/acc1_sd", None),
        ("eval/imagenet/acc1", False),
        ("discovery/corloc", False),
        ("quantization/acc1_drop", True),
        ("quantization/cosine", False),
        ("stability/grad_spikes", True),
        ("stability/nonfinite_steps", True),
        ("stability/lr_sensitivity", True),
        ("balanced_accuracy", False),
        ("val/loss", True),
        ("train/probe_loss", True),
        ("reconstruction error", True),
        ("sink/adaptive/events", None),
        ("toy/mass", None),
        ("toy/formed_step", None),
        ("norm/cls", None),
        ("gate/openness", None),
        ("loss_sd", None),
        ("steps", None),
    ],
)
def test_the_name_of_a_metric_tells_its_better_direction(metric: str, lower: bool | None) -> None:
    assert lower_is_better(metric) is lower


def test_a_metric_without_a_better_direction_is_higher_or_lower(tmp_path: Path) -> None:
    frame = table().rename({"val/acc1": "sink/mass"})
    outcome = compared(tmp_path, frame, metric="sink/mass").succeeded().out
    assert "higher (p < .001 after Holm)" in outcome
    assert "better (p" not in outcome
    assert "larger is better" not in outcome
    assert "complementary is" not in outcome
    assert "it is not known whether higher or lower sink/mass is better" in outcome
    comparison = as_json(compared(tmp_path, frame, "--format=json", metric="sink/mass"))
    assert {(row["higher"], row["better"]) for row in comparison["differences"]} == {(True, None)}
    assert {row["complementary"] for row in comparison["combinations"]} == {"not estimable"}
    told = compared(tmp_path, frame, "--lower_is_better=false", metric="sink/mass").succeeded().out
    assert "better (p < .001 after Holm)" in told
    assert "complementary is supported" in told


def test_a_loss_is_better_if_it_is_lower_without_being_told(tmp_path: Path) -> None:
    comparison = as_json(compared(tmp_path, table(), "--format=json", metric="val/loss"))
    assert {(row["higher"], row["better"]) for row in comparison["differences"]} == {(False, True)}


def test_an_interaction_of_a_metric_without_a_better_direction_is_above_or_below_additive() -> None:
    frame = factorial_table("events", lambda gate, registers: 5 - (gate and registers), noise=0.01)
    comparison = compare(frame, metric="events", factors=["gate", "registers"])
    assert comparison.combinations[0].kind == "below additive"
    assert any("more, downward, than the sum of their effects" in line for line in comparison.sentences)


def test_messages_of_the_python_function_name_its_arguments() -> None:
    frame = table()
    assert any(
        "Add detect=EFFECT" in line
        for line in compare(frame, metric="val/acc1", factors=["gate", "registers"]).sentences
    )
    with pytest.raises(ValueError, match="a factor, nested for seeds within a run, or image for images"):
        compare(pl.concat([frame, frame]), metric="val/acc1", factors=["gate", "registers"])

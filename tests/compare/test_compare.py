"""`compare` as a user runs it: right and wrong tables, every format."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from running import Outcome, forked, run
from scipy import stats

from sinkablate.compare.analysis import compare
from sinkablate.compare.correction import corrected


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal in which no sentence is wrapped."""
    monkeypatch.setenv("COLUMNS", "1000")


def table(gates: tuple[str, ...] = ("none", "headwise", "elementwise"), seeds: int = 5) -> pl.DataFrame:
    """As `sweep collect` writes it; both mechanisms help and add up."""
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(seeds):
        shared = rng.normal(0, 0.005)
        for gate in gates:
            for registers in (0, 4):
                accuracy = 0.84 + 0.02 * (gate != "none") + 0.03 * (registers > 0) + shared + rng.normal(0, 0.003)
                rows.append(
                    {
                        "run": f"{gate}-{registers}-{seed}",
                        "status": "done",
                        "gate": gate,
                        "registers": registers,
                        "seed": seed,
                        "diverged": False,
                        "val/acc1": accuracy,
                        "val/loss": 1 - accuracy,
                    }
                )
    return pl.DataFrame(rows)


def image_table(seeds: int, images: int) -> pl.DataFrame:
    """A row an image of every run; the effect differs from image to image by far more than from seed to seed."""
    rng = np.random.default_rng(0)
    own = rng.normal(0, 1, images)
    rows = [
        (gate, seed, image, own[image] * (gate == "headwise") + rng.normal(0, 0.1))
        for gate in ("none", "headwise")
        for seed in range(seeds)
        for image in range(images)
    ]
    return pl.DataFrame(rows, schema=["gate", "seed", "image", "hit"], orient="row")


def compared(
    path: Path, frame: pl.DataFrame, *args: str | Path, metric: str = "val/acc1", factors: str = "gate,registers"
) -> Outcome:
    file = path / "runs.csv"
    frame.write_csv(file)
    return run("compare", file, "--metric", metric, "--factors", factors, *args)


def as_json(outcome: Outcome) -> dict:
    (only,) = json.loads(outcome.succeeded().out)["comparisons"]
    return only


def test_the_table_and_its_sentences(tmp_path: Path) -> None:
    said = compared(tmp_path, table(), "--baseline", "gate=none,registers=0", "--pair-by", "seed", "--detect", ".01")
    for part in (
        "gate=headwise and registers=4: complementary is supported",
        "not distinguishable from additive",
        r"one of 0.01 needs \d+( to \d+)? seeds",
        "Holm over 5 differences",
        "The smallest number of pairs behind a difference is 5, which is few",
        "2.4 for pairs without correlation",
        "All interactions of gate and registers together",
    ):
        assert re.search(part, said.succeeded().out), part


def test_json_holds_everything_and_out_the_same(tmp_path: Path) -> None:
    found = as_json(compared(tmp_path, table(), "--format", "json", "--out", tmp_path / "said.json"))
    assert found == json.loads((tmp_path / "said.json").read_text())["comparisons"][0]
    assert {"cells", "differences", "combinations", "omnibus", "notes", "sentences", "family"} <= set(found)
    assert found["combinations"][0]["kind"] == "undetermined"
    assert found["differences"][0]["p_sign_flip"] is None


def test_a_terminal_shows_the_first_rows_of_a_long_table_and_says_so(tmp_path: Path) -> None:
    many = table(gates=("none", *(f"gate{number:03d}" for number in range(100))), seeds=2)
    said = compared(tmp_path, many).succeeded().out
    assert "the first 100 of 202 rows" in said
    assert "the first 100 of 201 rows" in said
    assert "gate060" not in said[: said.index("two together")]
    assert compared(tmp_path, many, "--format=markdown").succeeded().out.count("| gate099 |") == 2
    assert len(as_json(compared(tmp_path, many, "--format=json"))["cells"]) == 202


def test_latex_and_markdown_are_whole_tables(tmp_path: Path) -> None:
    latex = compared(tmp_path, table(), "--format=latex").succeeded().out
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 3
    for head, body in re.findall(r"\\begin{tabular}{(\w+)}\n\\toprule\n(.*?)\\bottomrule", latex, re.DOTALL):
        for row in body.replace("\\midrule\n", "").splitlines():
            assert len(re.split(r"(?<!\\)&", row)) == len(head)
            assert not re.search(r"(?<!\\)[%_#]", row)
    markdown = compared(tmp_path, table(), "--format=markdown").succeeded().out
    for block in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_order_of_rows_file_format_and_units_change_nothing(tmp_path: Path) -> None:
    frame = table()
    first = as_json(compared(tmp_path, frame, "--format=json"))
    assert as_json(
        compared(
            tmp_path,
            frame.sample(fraction=1, shuffle=True, seed=1).sort("gate", descending=True),
            "--format=json",
            "--baseline=gate=none",
        )
    )["combinations"][0]["interaction"] == pytest.approx(first["combinations"][0]["interaction"])
    frame.with_columns(pl.col("registers").cast(pl.Float64)).write_parquet(tmp_path / "runs.parquet")
    stored = as_json(
        run("compare", tmp_path / "runs.parquet", "--metric=val/acc1", "--factors=gate,registers", "--format=json")
    )
    assert stored == first
    percent = as_json(compared(tmp_path, frame.with_columns(pl.col("val/acc1") * 100), "--format=json"))
    for one, other in zip(percent["differences"], first["differences"], strict=True):
        assert one["p_holm"] == pytest.approx(other["p_holm"])
        assert one["hedges_g"] == pytest.approx(other["hedges_g"])
        assert one["detectable"] == pytest.approx(100 * other["detectable"])


def test_a_loss_says_what_the_accuracy_says_with_lower_is_better(tmp_path: Path) -> None:
    said = compared(tmp_path, table(), "--lower_is_better", "val/loss", "--format=json", metric="val/acc1,val/loss")
    up, down = json.loads(said.succeeded().out)["comparisons"]
    for one, other in zip(up["differences"], down["differences"], strict=True):
        assert one["better"] is other["better"] is True
        assert one["estimate"]["value"] == pytest.approx(-other["estimate"]["value"])
    for one, other in zip(up["combinations"], down["combinations"], strict=True):
        assert one["complementary"] == other["complementary"] == "supported"
        assert one["p_complementary"] == pytest.approx(other["p_complementary"])
    wrong = as_json(compared(tmp_path, table(), "--format=json", metric="val/loss"))
    assert {found["complementary"] for found in wrong["combinations"]} == {"not supported"}
    bare = as_json(compared(tmp_path, table(), "--format=json", "--lower_is_better", metric="val/loss"))
    assert (
        bare["combinations"]
        == as_json(compared(tmp_path, table(), "--format=json", "--lower-is-better=val/loss", metric="val/loss"))[
            "combinations"
        ]
    )


def test_where_takes_the_rows_of_a_level_alone(tmp_path: Path) -> None:
    rows = table()
    both = pl.concat([rows.with_columns(task=pl.lit("a")), rows.with_columns(task=pl.lit("b"))])
    assert "two rows" in compared(tmp_path, both).err or compared(tmp_path, both).code == 2
    assert compared(tmp_path, both, "--where=task=b").succeeded().out == compared(tmp_path, rows).succeeded().out


def test_a_family_of_all_metrics_is_larger(tmp_path: Path) -> None:
    alone, together = (
        json.loads(
            compared(tmp_path, table(), "--format=json", "--family", family, metric="val/acc1,val/loss").succeeded().out
        )["comparisons"][0]
        for family in ("metric", "all")
    )
    assert "Holm over 10 differences" in together["family"]
    pairs = list(zip(alone["differences"], together["differences"], strict=True))
    assert all(other["p_holm"] >= one["p_holm"] for one, other in pairs)
    assert any(other["p_holm"] > one["p_holm"] for one, other in pairs)


def test_equal_is_said_within_a_margin_alone(tmp_path: Path) -> None:
    frame = table(("none", "headwise"))
    assert "equivalent within" not in compared(tmp_path, frame).succeeded().out
    said = compared(tmp_path, frame, "--margin", "0.2").succeeded().out
    assert "additive within ±0.2 is supported (TOST" in said
    assert "equivalent within ±0.2 (TOST" in said


def test_welch_needs_no_seeds(tmp_path: Path) -> None:
    said = compared(tmp_path, table().drop("seed"), "--primary", "welch").succeeded().out
    assert "there is no column seed: nothing is paired" in said
    assert "Hotelling" not in said
    assert "two-way analysis of variance" in said


CELL = (pl.col("gate") == "headwise") & (pl.col("registers") == 4)
SEED = CELL & (pl.col("seed") == 2)


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda f: f.filter(~SEED), r"same values of seed \(4 to 5 each, 4 in all of them\)"),
        (lambda f: f.filter(~CELL), "1 cells have no runs: gate=headwise, registers=4"),
        (lambda f: f.filter(~(CELL & (pl.col("seed") > 0))), "one run has a value but no inference: gate=headwise"),
        (
            lambda f: f.with_columns(pl.when(SEED).then(float("nan")).otherwise("val/acc1").alias("val/acc1")),
            "missing or not finite in 1 runs .* gate=headwise, registers=4, seed=2",
        ),
        (
            lambda f: f.with_columns(pl.when(SEED).then(float("inf")).otherwise("val/acc1").alias("val/acc1")),
            "missing or not finite in 1 runs",
        ),
        (lambda f: f.with_columns(pl.lit(0.5).alias("val/acc1")), r"val/acc1 is constant \(0.5\)"),
        (
            lambda f: f.with_columns(SEED.alias("diverged")),
            "runs that diverged \\(1 of 5 with gate=headwise, registers=4\\)",
        ),
        (lambda f: f.filter(pl.col("registers") == 0), "registers has only the level 0"),
        (lambda f: f.with_columns(pl.col("gate").replace("none", None)), "gate has no value in 10 rows"),
    ],
)
def test_what_is_not_as_it_should_be_is_said(tmp_path: Path, change, note: str) -> None:
    assert re.search(f"Note: .*{note}", compared(tmp_path, change(table())).succeeded().out)


def test_one_run_a_cell_has_values_and_no_p(tmp_path: Path) -> None:
    found = as_json(compared(tmp_path, table(seeds=1), "--format=json"))
    for each in found["differences"]:
        assert each["estimate"]["value"] is not None
        assert each["estimate"]["p"] is each["p_holm"] is each["better"] is None
    assert {each["kind"] for each in found["combinations"]} == {"not estimable"}


def test_runs_that_diverge_in_one_cell_alone_are_an_outcome() -> None:
    lost = CELL & (pl.col("seed") < 8)
    frame = table(("none", "headwise"), seeds=10).with_columns(
        diverged=lost, **{"val/acc1": pl.when(lost).then(None).otherwise("val/acc1")}
    )
    found = compare(frame, metric="val/acc1", factors=["gate", "registers"])
    cell = found.cells[-1]
    assert (cell.runs, cell.diverged, cell.n, cell.missing) == (10, 8, 2, 0)
    assert found.differences[-1].p_diverged < 0.01
    assert any("its share of diverged runs differs (Fisher" in line for line in found.sentences)


def test_images_widen_the_interval() -> None:
    frame = image_table(5, 50)
    images = compare(frame, metric="hit", factors=["gate"], image="image")
    seeds = compare(frame.group_by("gate", "seed").agg(pl.col("hit").mean()), metric="hit", factors=["gate"])
    one, other = images.differences[0].estimate, seeds.differences[0].estimate
    assert one.value == pytest.approx(other.value)
    assert one.se > 3 * other.se
    assert any("seeds and 50 images" in note for note in images.notes)


def test_what_the_seeds_could_find_does_not_contradict_itself_where_images_vary() -> None:
    found = compare(image_table(8, 40), metric="hit", factors=["gate"], image="image", detect=0.1)
    (difference,) = found.differences
    assert (difference.seeds_needed, np.isnan(difference.p_sign_flip)) == (None, True)
    assert any("The number of seeds for a difference of 0.1 is unknown for 1 of 1" in line for line in found.sentences)


def test_an_effect_that_no_number_of_seeds_finds_is_not_passed_over() -> None:
    found = compare(table(), metric="val/acc1", factors=["gate", "registers"], detect=1e-9)
    assert any("is unknown for 5 of 5" in line for line in found.sentences)


@pytest.mark.parametrize("primary", ["paired", "welch"])
def test_rounding_is_no_spread(primary) -> None:
    """Exactly additive, the same on every seed but for the order of sums: no test of anything is made."""
    levels = {"none": 0.1, "headwise": 0.3, "elementwise": 0.7}
    rows = [
        (gate, registers, seed, sum((value, 0.2 * registers, 1.3)[:: 1 if seed % 2 else -1]))
        for gate, value in levels.items()
        for registers in (0, 4)
        for seed in range(6)
    ]
    frame = pl.DataFrame(rows, schema=["gate", "registers", "seed", "acc"], orient="row")
    found = compare(frame, metric="acc", factors=["gate", "registers"], primary=primary)
    assert np.isnan([each.p_holm for each in (*found.differences, *found.combinations)]).all()
    assert np.isnan([each.p_sign_flip for each in found.differences]).all()
    assert found.omnibus == ()
    assert any(
        "no test of all interactions of gate and registers together: it needs spread" in note for note in found.notes
    )


def test_the_fewest_seeds_are_those_behind_a_difference() -> None:
    apart = table().filter((pl.col("gate") != "headwise") | (pl.col("registers") == 0) | (pl.col("seed") > 2))
    said = compare(apart, metric="val/acc1", factors=["gate", "registers"]).sentences
    assert any("The smallest number of pairs behind a difference is 2, which is few" in line for line in said)
    said = compare(apart, metric="val/acc1", factors=["gate", "registers"], primary="welch").sentences
    assert any("The smallest number of seeds behind a difference is 2, which is few" in line for line in said)
    lonely = apart.filter((pl.col("gate") != "headwise") | (pl.col("registers") == 0) | (pl.col("seed") > 3))
    said = compare(lonely, metric="val/acc1", factors=["gate", "registers"]).sentences
    assert any("is 1: nothing can be inferred from it" in line for line in said)
    assert not any("is 5, which is few" in line for line in said)


def test_what_is_not_known_of_a_run_is_no_evidence_that_it_did_not_diverge() -> None:
    rows = [("none", seed, 1.0 + 0.01 * seed, False) for seed in range(10)]
    rows += [("headwise", seed, None if seed < 8 else 1.2 + 0.01 * seed**2, seed < 4) for seed in range(10)]
    frame = pl.DataFrame(rows, schema=["gate", "seed", "acc", "diverged"], orient="row")
    found = compare(frame, metric="acc", factors=["gate"])
    (difference,) = found.differences
    assert difference.p_diverged == pytest.approx(stats.fisher_exact([[4, 2], [0, 10]]).pvalue)
    assert any("(2 of 6 and 10 of 10)" in line for line in found.sentences)
    several = corrected([found, replace(found, metric="again")])
    assert several[1].differences[0].p_diverged == difference.p_diverged


def test_a_baseline_that_always_diverges_is_an_outcome() -> None:
    base = (pl.col("gate") == "none") & (pl.col("registers") == 0)
    frame = table(seeds=6).with_columns(diverged=base, **{"val/acc1": pl.when(base).then(None).otherwise("val/acc1")})
    found = compare(frame, metric="val/acc1", factors=["gate", "registers"])
    assert found.cells[0].n == 0
    assert all(each.p_diverged < 0.05 and np.isnan(each.p_holm) for each in found.differences)


def test_the_family_counts_the_tests_that_were_made() -> None:
    one = (pl.col("gate") == "headwise") & (pl.col("seed") > 0)
    found = compare(table().filter(~one), metric="val/acc1", factors=["gate", "registers"], margin=0.01)
    assert "Holm over 3 of 5 differences (the others have no inference)" in found.family
    assert "1 of 2 interactions" in found.family
    assert "3 of 5 tests of equivalence" in found.family


def test_two_that_harm_are_not_praised() -> None:
    rng = np.random.default_rng(0)
    rows = [
        (gate, registers, seed, 0.8 - 0.05 * (gate != "none" or registers > 0) + rng.normal(0, 0.001))
        for gate in ("none", "headwise")
        for registers in (0, 4)
        for seed in range(6)
    ]
    frame = pl.DataFrame(rows, schema=["gate", "registers", "seed", "acc"], orient="row")
    found = compare(frame, metric="acc", factors=["gate", "registers"])
    assert found.combinations[0].kind == "synergistic"
    assert any("each harms, and together they harm less than the sum" in line for line in found.sentences)


def test_probe_seeds_that_some_runs_lack_are_said() -> None:
    frame = table().join(pl.DataFrame({"probe": [0, 1, 2]}), how="cross")
    frame = frame.filter((pl.col("gate") != "headwise") | (pl.col("probe") < 2))
    found = compare(frame, metric="val/acc1", factors=["gate", "registers"], nested="probe")
    assert any("runs do not have the same values of probe" in note for note in found.notes)


def test_a_table_that_holds_itself_twice_is_said() -> None:
    twice = pl.concat([table(), table()])
    found = compare(twice, metric="val/acc1", factors=["gate", "registers"], pair_by=None, primary="welch")
    assert any("60 rows equal another row in every column" in note for note in found.notes)


BAD = {
    "a column": (("--nested=prob",), "nested=prob: no such column"),
    "a column of where": (("--where=gates=none",), "where=gates: no such column; did you mean gate"),
    "a level of where": (("--where=gate=headwize",), "where: no row has gate=headwize; did you mean headwise"),
    "a level": (("--baseline=gate=headwize",), "gate has no level headwize; did you mean headwise"),
    "a factor of the baseline": (
        ("--baseline=gates=none",),
        "baseline=gates: not one of the factors; did you mean gate",
    ),
    "no level": (("--baseline=gate",), "baseline=gate: must have the form NAME=VALUE"),
    "a pair": (("--pair_by=sed",), "pair_by=sed: no such column; did you mean seed"),
    "a margin": (("--margin=-1",), "margin=-1.0: must be a number above 0"),
    "no number": (("--detect=much",), "detect=much: not a number"),
    "a direction": (("--lower_is_better=val/los",), "lower_is_better=val/los: not one of the metrics"),
    "diverged": (("--diverged=status",), "status: neither true nor false in row 1"),
    "out": (("--out=/nowhere/at/all.txt",), "out=/nowhere/at/all.txt"),
    "an option": (("--metrik=x",), "metrik"),
    "a format": (("--family=both",), "family"),
}


@pytest.mark.parametrize(("args", "message"), BAD.values(), ids=BAD)
def test_a_wrong_option_is_one_line(tmp_path: Path, args: tuple[str, ...], message: str) -> None:
    outcome = compared(tmp_path, table(), *args)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "metric", "factors", "message"),
    [
        (lambda f: f, "val/acc", "gate", "metric=val/acc: no such column; did you mean val/acc1"),
        (lambda f: f, "status", "gate,registers", "metric=status: not a number in row 1: 'done'"),
        (lambda f: f, "val/acc1", "gate", "2 rows for gate=none, seed=0 (the first of 15 such groups)"),
        (lambda f: f, "val/acc1", "gate,gate", "factors=gate,gate: a name is repeated"),
        (lambda f: pl.concat([f, f[:1]]), "val/acc1", "gate,registers", "2 rows for gate=none, registers=0, seed=0"),
        (lambda f: f.filter(CELL), "val/acc1", "gate,registers", "one level each, nothing to compare"),
        (lambda f: f.filter(pl.col("gate") != "none"), "val/acc1", "gate,registers", "is an obvious baseline"),
        (
            lambda f: f.with_columns(pl.lit(None).alias("val/acc1")),
            "val/acc1",
            "gate,registers",
            "no row has a finite value",
        ),
        (
            lambda f: f.filter((pl.col("gate") != "none") | (pl.col("registers") == 4)),
            "val/acc1",
            "gate,registers",
            "there are no runs with gate=none, registers=0",
        ),
        (
            lambda f: f.with_columns(pl.col("seed").replace(2, None)),
            "val/acc1",
            "gate,registers",
            "pair_by=seed: no value in row 13",
        ),
        (lambda f: f[:0], "val/acc1", "gate,registers", "the table has no rows"),
    ],
)
def test_a_table_that_cannot_be_compared_is_refused(
    tmp_path: Path, change, metric: str, factors: str, message: str
) -> None:
    outcome = compared(tmp_path, change(table()), metric=metric, factors=factors)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_no_number_is_cut_where_the_terminal_is_narrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = compared(tmp_path, table(), "--margin", ".01").succeeded().out
    monkeypatch.setenv("COLUMNS", "60")
    narrow = compared(tmp_path, table(), "--margin", ".01").succeeded().out
    assert "…" not in narrow
    numbers = re.findall(r"[+-]0\.\d+ \[[^]]+\]", wide[: wide.index("Intervals (95")])
    assert len(numbers) == 10
    assert all(number in narrow for number in numbers)


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    kept = tmp_path / "sweep.yaml"
    kept.write_text("name: mine\n")
    refused = compared(tmp_path, table(), "--out", kept)
    assert (refused.code, "already exists; choose" in refused.err, kept.read_text()) == (2, True, "name: mine\n")
    compared(tmp_path, table(), "--out", kept, "--overwrite").succeeded()
    assert "val/acc1" in kept.read_text()


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "runs.parquet").write_text("no")
    (tmp_path / "runs.txt").write_text("no")
    (tmp_path / "twice.csv").write_text("a,a,m\n1,2,3\n")
    for name, message in {
        "missing.csv": "no such file",
        "runs.parquet": "cannot be read",
        "runs.txt": "a .csv or .parquet",
        "twice.csv": "two columns are named a",
    }.items():
        outcome = run("compare", tmp_path / name, "--metric=m", "--factors=a")
        assert outcome.code == 2
        assert message in outcome.err


def test_it_is_a_process_too(tmp_path: Path) -> None:
    table().write_csv(tmp_path / "runs.csv")
    done = forked("compare", tmp_path / "runs.csv", "--metric=val/acc1", "--factors=gate,registers", "--pair-by=seed")
    assert "complementary is supported" in done.succeeded().out

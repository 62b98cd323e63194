"""The page on quantities lists what real runs write, and nothing else."""

import csv
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from pages import small
from running import CONFIGS, ROOT, run
from sharing import Once

import sinkablate as sa
from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.rules import Label, all_rules
from sinkablate.vit.tokens import TokenType

pytestmark = pytest.mark.heavy

PAGE = (ROOT / "docs" / "quantities.md").read_text()
SECTIONS = {part.splitlines()[0]: part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}
RUNS = {
    "gate": (CONFIGS / "gate_reg.yaml",),
    "values": (CONFIGS / "gate_value.yaml", "--model.backbone.pathway.kind=global", "--model.common_mode.weight=0.1"),
    "null": (CONFIGS / "sink_zero.yaml",),
    "lejepa": (CONFIGS / "lejepa_small.yaml",),
    "nop": (CONFIGS / "toy" / "nop.yaml",),
    "broadcast": (CONFIGS / "toy" / "broadcast.yaml",),
    "mixed": (CONFIGS / "toy" / "mixed.yaml", "--model.toy.registers=4"),
}


def write_runs(root: Path) -> None:
    for name, (config, *words) in RUNS.items():
        run(*small(["fit", "--config", str(config), "--run_dir", str(root / name), *words])).succeeded()
    torch.save(sa.create_model("vit_mini").state_dict(), root / "plain.pt")
    retrofit = [f"--model.retrofit.{name}=1" for name in ("cls_weight", "patch_weight", "added_steps")]
    source = ["--config", str(CONFIGS / "gate.yaml"), "--model.backbone.checkpoint", str(root / "plain.pt")]
    run(*small(["fit", *source, *retrofit, "--run_dir", str(root / "retrofit")])).succeeded()
    run("diagnose", "--run", root / "gate", "--out", root / "diagnosis").succeeded()


@pytest.fixture(scope="module")
def written(once: Once) -> Path:
    return once("runs_of_quantities", write_runs)


def listed(section: str) -> list[str]:
    """Names in the first column of the tables of a section."""
    return re.findall(r"^\| `([^`]+)` \|", SECTIONS[section], re.MULTILINE)


def pattern(name: str) -> re.Pattern[str]:
    """Return a pattern that matches every name that a name with placeholders stands for."""
    choices = {
        "rule": [rule.name for rule in all_rules(ThresholdConfig(), gated=True)],
        "type": [kind.label for kind in TokenType],
        "label": [label.name.lower() for label in Label if label != Label.NONE],
        "quantity": listed("Per image, block and head"),
        "b": [r"\d+"],
        "name": [r"\w+"],
    }
    parts = re.split(r"<(\w+)>", name)
    text = "".join(
        f"(?:{'|'.join(choices[part] if part in ('b', 'name') else map(re.escape, choices[part]))})"
        if position % 2
        else re.escape(part)
        for position, part in enumerate(parts)
    )
    return re.compile(f"{text}$")


def assert_same(section: str, names: Iterable[str]) -> None:
    """Every name is listed, and whatever is listed occurs."""
    occurring = set(names)
    patterns = {name: pattern(name) for name in listed(section)}
    assert [name for name in sorted(occurring) if not any(p.match(name) for p in patterns.values())] == []
    assert [name for name, p in patterns.items() if not any(map(p.match, occurring))] == []


def test_quantities_of_heads(written: Path) -> None:
    arrays = np.load(written / "diagnosis" / "per_image.npz")
    names = {name for name in arrays.files if arrays[name].ndim == 3}
    medians = {name.removeprefix("median_") for name in columns(written, "diagnostics/step_*.parquet")}
    assert_same("Per image, block and head", names | {name for name in medians if name.startswith("raw_")})


def test_table_of_heads(written: Path) -> None:
    assert_same("Table of heads", columns(written, "diagnostics/step_*.parquet", "heads.parquet"))


def test_table_of_blocks(written: Path) -> None:
    assert_same("Table of blocks", columns(written, "diagnostics/blocks/step_*.parquet", "blocks.parquet"))


def test_histograms_of_token_norms(written: Path) -> None:
    names = columns(written, "diagnostics/norm_histograms/step_*.parquet", "norm_histograms.parquet")
    assert_same("Histograms of token norms", names)


def test_token_maps(written: Path) -> None:
    assert_same("Token maps", columns(written, "token_maps.parquet"))
    heads = columns(written, "token_map_heads.parquet")
    assert heads == {"block", "head", "sink_outliers", "chance_sink_outliers"}


def test_scalars(written: Path) -> None:
    names: set[str] = set()
    for path in written.glob("*/metrics.csv"):
        with path.open(newline="") as file:
            names |= set(next(csv.reader(file)))
    assert_same("Scalars", names)


def columns(root: Path, *patterns: str) -> set[str]:
    """Columns of all parquet files that match the patterns."""
    return {name for glob in patterns for path in root.glob(f"*/{glob}") for name in pl.read_parquet_schema(path)}


@pytest.mark.parametrize("task", ["knn", "linear", "discovery", "sinks", "quantization"])
def test_numbers_of_an_evaluation(task: str, image_folder: Path, written: Path) -> None:
    settings = {"linear": {"epochs": 1}, "quantization": {"bits": (8,), "limit": 2, "layer_limit": 1}}
    result = sa.evaluate(written / "gate", task, data=image_folder, floors=False, settings=settings)
    names = {re.sub("_(low|high)$", "", name) for name in result.summary if name.count("/") == 1}
    assert names == {name for name in listed("Evaluation") if name.startswith(f"{task}/")}

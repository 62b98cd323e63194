"""Runs `diagnose` on a small model and reads its results."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image
from polars.testing import assert_frame_equal
from running import Outcome, run, summary

SMALL = ("--backbone.name", "vit_tiny_patch16_224", "--backbone.img_size", "64", "--backbone.pretrained", "false")
FIGURES = ("handoff", "frequency", "entropy", "atlas", "token_norms", "token_maps", "sensitivity", "stripes")
FILES = {
    "diagnosis.json",
    "per_image.npz",
    "heads.parquet",
    "blocks.parquet",
    "sensitivity.parquet",
    "norm_histograms.parquet",
    "token_maps.parquet",
    "token_map_heads.parquet",
    "token_maps.npz",
    "summary.json",
    "figures/stripes.npz",
    *(f"figures/{name}.{kind}" for name in FIGURES for kind in ("pdf", "png", "csv")),
}
PER_IMAGE = (
    "mass",
    "routed_frac",
    "min_a",
    "cond_mass",
    "ratio_head",
    "ratio_out",
    "sink_head_norm",
    "stable_rank",
    "routed_stable_rank",
    "rank1_energy",
    "update_norm",
    "sink_value_norm",
    "rel_update",
    "quiet_frac",
    "entropy",
    "row_mass",
    "null_mass",
    "sink_idx",
)
PROCESS = ("seconds", "images_per_second", "peak_memory_gib", "rebuild_error")
"""Numbers that depend on the process: its time, its memory, its first batch."""


def diagnose(out: Path, images: str | Path = "builtin", *args: str | Path) -> Outcome:
    """Diagnose a small untrained model."""
    return run("diagnose", *SMALL, "--images", images, "--out", out, *args)


def arrays(out: Path) -> dict[str, Any]:
    """Content of `per_image.npz`, read without pickle."""
    with np.load(out / "per_image.npz") as stored:
        return dict(stored)


def same_results(one: Path, other: Path, rtol: float = 0.0) -> None:
    """Check that two directories contain the same numbers; with a tolerance, only the arrays are compared."""
    before, after = arrays(one), arrays(other)
    assert before.keys() == after.keys()
    for name, values in before.items():
        if rtol and values.dtype.kind == "f":
            np.testing.assert_allclose(after[name], values, rtol=rtol, atol=rtol, err_msg=name)
        else:
            np.testing.assert_array_equal(after[name], values, err_msg=name)
    if rtol:
        return
    assert (one / "token_maps.npz").read_bytes() == (other / "token_maps.npz").read_bytes()
    for table in ("heads", "blocks", "sensitivity", "token_maps", "token_map_heads"):
        assert_frame_equal(*(pl.read_parquet(out / f"{table}.parquet") for out in (one, other)), check_exact=True)
    first, second = ({k: v for k, v in summary(out).items() if k not in PROCESS} for out in (one, other))
    assert first == second


def photographs(root: Path) -> list[Path]:
    """Write nine images of several sizes and modes into two folders; returns their sorted paths."""
    generator = np.random.default_rng(0)
    for index in range(9):
        colors = generator.integers(0, 256, (70 + index, 80, 3), np.uint8)
        path = root / f"part{index % 2}" / f"{index}.{'png' if index % 3 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(colors).convert("L" if index == 4 else "RGB").save(path)
    return sorted(root.rglob("*.*"))

"""Tables of runs as `sweep collect` writes them, and a function that compares them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from running import Outcome, run


def table(gates: tuple[str, ...] = ("none", "headwise", "elementwise"), seeds: int = 5) -> pl.DataFrame:
    """A table as `sweep collect` writes it; both mechanisms help, and their effects are additive."""
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
    """A table with one row per image and run, whose effect varies far more between images than between seeds."""
    rng = np.random.default_rng(0)
    effects = rng.normal(0, 1, images)
    rows = [
        (gate, seed, image, effects[image] * (gate == "headwise") + rng.normal(0, 0.1))
        for gate in ("none", "headwise")
        for seed in range(seeds)
        for image in range(images)
    ]
    return pl.DataFrame(rows, schema=["gate", "seed", "image", "hit"], orient="row")


def factorial_table(metric: str, outcome: Callable[[bool, bool], float], noise: float) -> pl.DataFrame:
    """A table of a gate and registers, six seeds each: `outcome` of whether a cell has each of them, plus noise."""
    rng = np.random.default_rng(0)
    rows = [
        (gate, registers, seed, outcome(gate != "none", registers > 0) + rng.normal(0, noise))
        for gate in ("none", "headwise")
        for registers in (0, 4)
        for seed in range(6)
    ]
    return pl.DataFrame(rows, schema=["gate", "registers", "seed", metric], orient="row")


CELL = (pl.col("gate") == "headwise") & (pl.col("registers") == 4)


SEED = CELL & (pl.col("seed") == 2)


def compared(
    folder: Path, frame: pl.DataFrame, *args: str | Path, metric: str = "val/acc1", factors: str = "gate,registers"
) -> Outcome:
    """Run `compare` on a table, which is written into a folder."""
    file = folder / "runs.csv"
    frame.write_csv(file)
    return run("compare", file, "--metric", metric, "--factors", factors, *args)


def as_json(outcome: Outcome) -> dict:
    """The only comparison in the JSON output."""
    (comparison,) = json.loads(outcome.succeeded().out)["comparisons"]
    return comparison

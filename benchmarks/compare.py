"""Time `compare` on 10,000 rows as a separate process, relative to importing the libraries that it uses.

python -m benchmarks.compare [--rounds 5]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.interleave import interleave, report

ROWS = 10_000
LIBRARIES = "import polars, scipy.stats, statsmodels.stats.multitest, jsonargparse, rich.table"


def table(gates: int, registers: int, seeds: int) -> pl.DataFrame:
    """Random runs of a full factorial design."""
    rng = np.random.default_rng(0)
    rows = [
        (f"g{gate}" if gate else "none", r, seed, rng.normal())
        for gate in range(gates)
        for r in range(registers)
        for seed in range(seeds)
    ]
    return pl.DataFrame(rows, schema=["gate", "registers", "seed", "acc"], orient="row")


def images() -> pl.DataFrame:
    """Six cells of five seeds, with one row per image."""
    frame = table(3, 2, 5).join(pl.DataFrame({"image": range(ROWS // 30)}), how="cross")
    return frame.with_columns(acc=pl.Series(np.random.default_rng(0).normal(size=len(frame))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    quiet = partial(subprocess.run, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    with tempfile.TemporaryDirectory() as folder:
        tables = {
            "6 cells": (table(3, 2, ROWS // 6), ()),
            "100 cells": (table(50, 2, ROWS // 100), ()),
            "2,000 cells": (table(1000, 2, 5), ("--detect=1",)),
            "images": (images(), ("--image=image",)),
        }
        sides = {"imports": partial(quiet, [sys.executable, "-c", LIBRARIES])}
        for name, (frame, options) in tables.items():
            path = Path(folder) / f"{name}.csv"
            frame.write_csv(path)
            sides[name] = partial(
                quiet,
                [
                    sys.executable,
                    "-m",
                    "sinkablate",
                    "compare",
                    str(path),
                    "--metric=acc",
                    "--factors=gate,registers",
                    *options,
                ],
            )
        report(f"compare, {ROWS:,} rows (target: < 2 s)", interleave(sides, rounds), "imports")


if __name__ == "__main__":
    main()

"""Measure the overhead of a sweep: planning, claims, directories and states, without any training.

python -m benchmarks.sweep [--cells 1000]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sinkablate.run.cells import Cell
from sinkablate.sweep.grid import read_sweep
from sinkablate.sweep.running import Runner
from sinkablate.sweep.state import states


class Touched(Runner):
    """A runner whose cells finish immediately."""

    def _start(self, cell: Cell, claim: int, device: str | None) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(["touch", str(self.root / cell.id / "DONE")], pass_fds=[claim])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, root = Path(folder) / "sweep.json", Path(folder) / "cells"
        path.write_text(
            json.dumps(
                {
                    "name": "many",
                    "method": "grid",
                    "parameters": {"seed_everything": {"values": list(range(args.cells))}},
                    "command": ["python", "-m", "sinkablate", "fit", "--sweep", "many", "${args}"],
                }
            )
        )
        start = time.perf_counter()
        sweep = read_sweep(path)
        planned = time.perf_counter() - start
        start = time.perf_counter()
        Touched(sweep, root, jobs=2, restarts=0, show=lambda: None).run()
        ran = time.perf_counter() - start
        start = time.perf_counter()
        for cell in sweep.cells:
            subprocess.Popen(["touch", str(root / cell.id / "DONE")]).wait()
        alone = time.perf_counter() - start
        start = time.perf_counter()
        states(sweep.cells, root)
        looked = time.perf_counter() - start
        start = time.perf_counter()
        command = [sys.executable, "-m", "sinkablate", "sweep", "status", str(path), "--out", str(root)]
        subprocess.run(command, check=True, capture_output=True)
        status = time.perf_counter() - start
    print(
        f"{args.cells} cells: planned in {planned:.2f} s; run in {ran:.2f} s, {1000 * ran / args.cells:.1f} ms "
        f"per cell; the same processes alone take {1000 * alone / args.cells:.1f} ms (target: at most 50 ms more)"
    )
    print(f"states of all cells in {looked:.3f} s; `sweep status` with its imports {status:.2f} s (target: under 1 s)")


if __name__ == "__main__":
    main()

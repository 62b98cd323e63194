"""Print the table of everything whose speed on a GPU has a target, ready for benchmarks/README.md.

    python -m benchmarks.gpu                              at most eight minutes on one GPU
    python -m benchmarks.gpu --only diagnose checkpoint   rows whose names begin with these words
    python -m benchmarks.gpu --list                       names of the rows
    python -m benchmarks.gpu --tiny                       toy sizes, also on a CPU, to check that every row runs

Sides of a comparison alternate; the ratios are medians over rounds, with quartiles. Rows that take little time and
decide most come first. A row is started only if its estimated time fits the budget, and a row that fails does not stop
the others; both are listed at the end, with the command that measures what did not fit.
"""

import argparse
import gc
import math
import os
import sys
import time
from dataclasses import replace
from functools import partial
from importlib.metadata import version

import torch

from benchmarks import kernels
from benchmarks.gpu_rows import (
    LONG_TARGET,
    SCORES,
    TARGETS,
    TINY,
    Line,
    Row,
    Sizes,
    checkpoints,
    diagnosis,
    diagnostics,
    full,
    kernel,
    mechanism,
    trainings,
)
from sinkablate.errors import first_line

BUDGET = 450.0
"""Seconds; eight minutes with the imports and some reserve."""


def rows(sizes: Sizes) -> list[Row]:
    """Return all rows in the order in which they run."""
    compiled = replace(sizes.short, backend=sizes.backend)
    long = replace(sizes.long, backend=sizes.backend)
    models = [(f"{size.model}-{size.img_size}", size) for size in sizes.diagnosed]
    return [
        *(Row(f"diagnose/{name}", 10, partial(diagnosis, size, sizes.rounds, None)) for name, size in models),
        *(
            Row(f"mechanism/{name}", 5, partial(mechanism, name, sizes.short, sizes.rounds, asked))
            for name, (asked, _) in TARGETS.items()
        ),
        Row("diagnostics", 6, partial(diagnostics, sizes.short, sizes.probe_images, sizes.rounds)),
        Row("checkpoint", 25, partial(checkpoints, *sizes.checkpoint)),
        *(
            Row(f"compiled/{name}", 10, partial(mechanism, name, compiled, sizes.rounds, asked))
            for name, (_, asked) in TARGETS.items()
        ),
        *(Row(f"long/{name}", 12, partial(mechanism, name, long, sizes.rounds, LONG_TARGET)) for name in SCORES),
        Row("fit/eager", 40, partial(trainings, sizes.training, sizes.trainings, sizes.compiles_training)),
        *(Row(f"kernel/{name}", 12, partial(kernel, name, sizes.shapes, sizes.rounds)) for name in kernels.NAMES),
        *(
            Row(f"quantities-compiled/{name}", 45, partial(diagnosis, size, sizes.rounds, sizes.backend))
            for name, size in models[:1]
        ),
        Row("fit/compiled", 150, partial(trainings, replace(sizes.training, compile=True), 1, sizes.compiles_training)),
    ]


def formatted(line: Line) -> str:
    """Return a line of the table in Markdown."""
    ratio = ""
    if line.ratio is not None:
        numbers = (line.ratio.median, line.ratio.low, line.ratio.high)
        median, low, high = (f"{100 * x:.2f} %" if line.percent else f"{x:.3f}" for x in numbers)
        ratio = f"**{median}** ({low} to {high})"
    return f"| {line.label} | {line.time} | {ratio} | {line.target} |"


def machine() -> str:
    """Describe the device and the versions."""
    names = ("torch", "timm", "lightning")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    cuda = f", CUDA {torch.version.cuda}" if torch.cuda.is_available() else ""
    return f"{device}{cuda}, Python {sys.version.split()[0]}, " + ", ".join(f"{name} {version(name)}" for name in names)


def measure(chosen: list[Row], budget: float, start: float) -> bool:
    """Print the table; returns whether no row failed."""
    skipped, failed = [], []
    print(f"{machine()}\n\n| | median | ratio (quartiles) | target |\n|---|---|---|---|", flush=True)
    for row in chosen:
        before = time.perf_counter()
        if before - start + row.seconds > budget:
            skipped.append(row.name)
            continue
        try:
            for line in row.measure():
                print(formatted(line), flush=True)
        except (Exception, SystemExit) as error:  # a command that fails has printed why
            failed.append(f"{row.name}: {type(error).__name__}: {first_line(error)}")
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        print(f"{row.name}: {time.perf_counter() - before:.1f} s", file=sys.stderr, flush=True)
    print(f"\nMeasured in {time.perf_counter() - start:.0f} s.")
    if skipped:
        print(f"Not measured within {budget:.0f} s: python -m benchmarks.gpu --only {' '.join(map(repr, skipped))}")
    for message in failed:
        print(f"Failed: {message}")
    return not failed


def main(arguments: list[str] | None = None) -> int:
    start = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="ROW", help="beginnings of the names of rows")
    parser.add_argument("--budget", type=float, help=f"seconds after which no row is started (default: {BUDGET:.0f})")
    parser.add_argument("--workers", type=int, default=min(14, max(1, (os.cpu_count() or 1) - 2)))
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, also on a CPU")
    args = parser.parse_args(arguments)
    chosen = rows(TINY if args.tiny else full(args.workers))
    if args.only:
        chosen = [row for row in chosen if row.name.startswith(tuple(args.only))]
    if not chosen:
        print("error: --only: no row begins with these words; --list prints the names", file=sys.stderr)
        return 2
    if args.list:
        print("\n".join(row.name for row in chosen))
        return 0
    if not (args.tiny or torch.cuda.is_available()):
        print("error: there is no GPU; --tiny runs every row at toy sizes on a CPU", file=sys.stderr)
        return 2
    budget = args.budget if args.budget is not None else math.inf if args.tiny else BUDGET
    gc.freeze()  # later collections need not visit the objects of the libraries
    # each mechanism is another version of the same code; beyond a limit, models would no longer be compiled, silently
    with torch._dynamo.config.patch(recompile_limit=64, fail_on_recompile_limit_hit=True):
        return 0 if measure(chosen, budget, start) else 1


if __name__ == "__main__":
    raise SystemExit(main())

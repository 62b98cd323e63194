"""Find the runs and diagnoses that a report shows, and name each so that a reader can tell them apart."""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from sinkablate.errors import UserError, printable
from sinkablate.report.merging import with_diagnoses, without_copies
from sinkablate.report.reading import read_run
from sinkablate.report.run import Run
from sinkablate.run.directory import CONFIG, DIAGNOSIS, EVALUATION, INTERVENTION

DEPTH = 3
"""Number of levels below a given directory that are searched for runs."""
FEW = 10
"""A report of more runs than this announces that it reads them."""
COMPARED_KEYS = ("task", "model.", "data.", "trainer.")
"""Beginnings of the configuration keys that can tell two runs of one variant and seed apart."""


def read_runs(directories: Sequence[str]) -> tuple[list[Run], list[str]]:
    """Read the runs and diagnoses that the directories are or hold.

    They stay in the order given; those of one folder are sorted by variant, seed and name. A diagnosis of a run in the
    list becomes part of that run. Copies of a run and damaged ones are left out.

    Args:
        directories: Directories of runs or diagnoses, or folders that hold them.

    Returns:
        The runs, each once, under names that differ; and a line for each one that is left out, with the reason.

    Raises:
        UserError: A directory is missing or holds neither runs nor diagnoses, or all of them are damaged.
    """
    origin: dict[Path, str] = {}
    for directory in directories:
        for path in _search(directory):
            origin.setdefault(path.resolve(), directory)
    if len(origin) > FEW:
        print(f"reading {len(origin)} runs …", file=sys.stderr, flush=True)
    as_given = {Path(directory).resolve(): Path(directory) for directory in directories}
    groups: dict[str, list[Run]] = {directory: [] for directory in directories}
    faults = []
    for path, directory in origin.items():
        try:
            groups[directory].append(read_run(as_given.get(path, path)))
        except UserError as error:
            faults.append(str(error))
    if len(faults) == len(origin):
        raise UserError(faults[0] if len(faults) == 1 else f"none of {len(faults)} runs can be read: {faults[0]}")
    runs = [run for group in groups.values() for run in sorted(group, key=_by_variant_and_seed)]
    runs, copies = without_copies(runs)
    runs = [replace(run, name=name) for run, name in zip(runs, _distinct_names(runs), strict=True)]
    return with_overrides(with_diagnoses(runs)), [*(f"Left out, damaged: {fault}" for fault in faults), *copies]


def _by_variant_and_seed(run: Run) -> tuple[str, int, str, str]:
    """A key to sort by; seeds are numbers, and a diagnosis, which has no seed, comes first."""
    return run.variant, int(run.seed) if run.seed.isdecimal() else -1, run.name, str(run.path)


def _search(directory: str) -> list[Path]:
    """Directories of runs at or below a directory, in the order of their names."""
    root = Path(directory)
    if not directory or not root.is_dir():
        raise UserError(f"runs: {directory or 'an empty name'} is not a directory")
    paths = list(_below(root, DEPTH, given=True))
    if not paths:
        if (root / EVALUATION).is_file():
            raise UserError(
                f"runs: {root} is an evaluation; a report shows the evaluation that lies within its run: run "
                "`evaluate --run RUN` without --out, and give RUN to report"
            )
        raise UserError(
            f"runs: {root} is neither a run ({CONFIG}), a diagnosis ({DIAGNOSIS}) nor an intervention "
            f"({INTERVENTION}), and contains none"
        )
    return paths


def _below(root: Path, depth: int, *, given: bool = False) -> Iterable[Path]:
    """Directories of runs at or below a directory.

    An intervention, which holds a diagnosis of its own, is searched only if the user gave its directory.
    """
    if (root / CONFIG).is_file() or (root / DIAGNOSIS).is_file():
        yield root
    elif depth and (given or not (root / INTERVENTION).exists()):
        for path in sorted(_entries(root)):
            if path.is_dir() and not path.name.startswith("."):
                yield from _below(path, depth - 1)


def _entries(folder: Path) -> list[Path]:
    """The content of a folder; empty, with a message on stderr, if it cannot be read."""
    try:
        return list(folder.iterdir())
    except OSError as error:
        print(f"{printable(str(folder))} cannot be read: {error.strerror}", file=sys.stderr)
        return []


def _distinct_names(runs: Sequence[Run]) -> list[str]:
    """Names of the runs, each preceded by as many parent folders as needed to make it unique.

    A run keeps the name that it shares only with diagnoses, which are often named after the run that they measured.
    """
    names = [run.name for run in runs]
    for parents in range(1, max((len(run.path.resolve().parts) for run in runs), default=0)):
        count = Counter(names)
        of_fits = Counter(name for run, name in zip(runs, names, strict=True) if run.kind == "run")
        repeated = [
            count[name] > 1 and (run.kind == "diagnosis" or of_fits[name] > 1)
            for run, name in zip(runs, names, strict=True)
        ]
        if not any(repeated):
            break
        names = [
            "/".join((*run.path.resolve().parts[-parents - 1 : -1], run.name)) if longer else name
            for run, name, longer in zip(runs, names, repeated, strict=True)
        ]
    return names


def with_overrides(runs: Sequence[Run]) -> list[Run]:
    """Give runs of one variant and seed variants that differ, such as `gate, lr=0.01`, if their configurations do."""
    shared: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.kind == "run":
            shared.setdefault((run.variant, run.seed), []).append(run)
    keys: dict[str, list[str]] = {}
    for (variant, _), group in shared.items():
        keys.setdefault(variant, []).extend(key for key in _differing(group) if key not in keys[variant])
    return [
        replace(run, variant=", ".join((run.variant, *(_setting(run, key) for key in keys[run.variant]))))
        if run.kind == "run" and keys.get(run.variant)
        else run
        for run in runs
    ]


def _differing(runs: Sequence[Run]) -> list[str]:
    """The first configuration keys whose values together tell the runs apart."""
    chosen: list[str] = []
    candidates = [key for key in runs[0].config if key.startswith(COMPARED_KEYS) and not key.endswith("seed")]
    apart = 1
    for key in candidates:
        settings = {tuple(str(run.config.get(name)) for name in (*chosen, key)) for run in runs}
        if len(settings) > apart:
            apart, chosen = len(settings), [*chosen, key]
    return chosen


def _setting(run: Run, key: str) -> str:
    return f"{key.rpartition('.')[2]}={run.config.get(key)}"

"""What the page of a report shows of each run, as compact plain values: columns, rounded, NaN as null."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from sinkablate.diagnostics.rules import ADAPTIVE_RULE, DEFAULT_RULE, scalar_prefix
from sinkablate.figures.maps import Maps, data_url, map_png, picture_png
from sinkablate.figures.sinks import LABEL_COLORS, TYPE_COLORS, moves
from sinkablate.report.runs import Run

DIGITS = 4
KINDS = tuple(TYPE_COLORS)
VERDICTS = (*LABEL_COLORS, "undefined")
QUANTITIES = {
    "median_mass": "attention mass on the sink",
    "median_routed_frac": "share of queries routed to it",
    "median_ratio_out": "value ratio, after the output projection",
    "median_ratio_head": "value ratio, raw",
    "median_stable_rank": "stable rank of the update",
    "median_rel_update": "update relative to the residual",
    "median_entropy": "entropy of the rows",
    "median_gate_open": "gate openness",
    "median_gate_corr": "correlation of gate and attention",
    "event_median_ratio_out": "value ratio in events",
    "event_median_stable_rank": "stable rank in events",
    "payload_constancy": "payload constancy",
    "specialisation": "specialisation, bits",
    "location_entropy": "entropy of the sink's place",
    "sink_idx": "commonest sink column",
}
"""Columns of a head table that the page shows, with their names there."""
POINTS = 100
"""Longest series of training steps."""
BUSIEST_IMAGES = 3
"""Of a diagnosed head, so many images with most mass are named."""


def rounded(values: ArrayLike, digits: int = DIGITS) -> list[float | None]:
    """Numbers to so many significant digits, None where they are not finite."""
    x = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(x) & (x != 0)
    power = digits - 1 - np.floor(np.log10(np.abs(np.where(finite, x, 1)))).astype(int)
    up, down = 10.0 ** np.maximum(power, 0), 10.0 ** np.maximum(-power, 0)
    short = np.rint(np.where(finite, x, 0) * up / down) / up * down
    return [value if ok else None for value, ok in zip(short.tolist(), np.isfinite(x).tolist(), strict=True)]


def column(table: pl.DataFrame, name: str) -> NDArray[np.float64]:
    """One column as floats, NaN for null."""
    return table[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def from_block_one(table: pl.DataFrame) -> pl.DataFrame:
    """Rows of blocks >= 1, as everywhere; of a model with one block that one."""
    return table.filter(pl.col("block") > 0) if table["block"].max() else table


def sinks(run: Run, rule: str) -> dict[str, float]:
    """Events per image of each verdict, summed over heads and blocks."""
    assert run.heads is not None
    table = from_block_one(run.heads)
    return {verdict: float((table[f"{rule}_{verdict}"] / table["images"]).sum()) for verdict in VERDICTS}


def counted_by_type(run: Run, rule: str) -> dict[str, dict[str, float]] | None:
    """Label -> token type -> events per image as they were counted event by event; None where the run holds no such."""
    single = run.heads is not None and not run.heads["block"].max()
    known = run.summary.get("first_block" if single else "counts") or {}
    return known[rule]["by_token_type"] if rule in known else None


def sinks_by_type(run: Run, rule: str) -> dict[str, dict[str, float]]:
    """Label -> token type -> events per image.

    Exact where events were counted by type; else, as in older or unfinished runs, whose files hold no more, each head's
    events go to its commonest token type.
    """
    stored = counted_by_type(run, rule)
    if stored is not None:
        return {label: {kind: float(stored[label].get(kind, 0)) for kind in KINDS} for label in LABEL_COLORS}
    assert run.heads is not None
    table = from_block_one(run.heads)
    return {
        label: {
            kind: float((some[f"{rule}_{label}"] / some["images"]).sum())
            for kind in KINDS
            for some in [table.filter(pl.col("token_type") == kind)]
        }
        for label in LABEL_COLORS
    }


def types_caveat(runs: Sequence[Run], rule: str | None = None) -> str:
    """How token types were given to events where they were not counted; empty where all were.

    Args:
        runs: What is shown.
        rule: Of the labels; None: any.
    """
    asked = [(run, [name for name in run.rules if rule in (None, name)]) for run in runs]
    exact = [all(counted_by_type(run, name) is not None for name in rules) for run, rules in asked if rules]
    which = f"of {exact.count(False)} of {len(exact)} runs " if any(exact) else ""
    return "" if all(exact) else f"{which}each head's events under its commonest token type"


def steps_of_labels(run: Run, rule: str) -> pl.DataFrame | None:
    """Events per image of each label over training steps: columns step, nop, broadcast, other."""
    single = run.heads is not None and not run.heads["block"].max()
    prefix = scalar_prefix(rule) + ("/first_block" if single else "")
    names = {f"{prefix}/{label}": label for label in LABEL_COLORS}
    if run.metrics is None or not set(names) <= set(run.metrics.columns):
        return None
    table = run.metrics.select("step", *names).rename(names).drop_nulls()
    places = np.unique(np.linspace(0, len(table) - 1, min(POINTS, len(table))).round().astype(int))
    return table[places.tolist()] if len(table) else None


def scalar_metrics(run: Run) -> dict[str, float]:
    """The numbers a run ended with, that are not of single blocks or of sinks."""
    return {
        name: float(value)
        for name, value in run.summary.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and name.count("/") == 1
        and name.startswith(("val/", "train/", "toy/", "probe/", "stability/", "gate/"))
    }


def page_run(run: Run, maps: Maps | None, pictures: dict[str, int]) -> dict[str, Any]:
    """Everything the page knows of one run.

    Args:
        run: The run.
        maps: Attention maps of some of its heads.
        pictures: Example images (data URL to number) of all runs so far; those of this run are added.
    """
    content: dict[str, Any] = {
        "name": run.name,
        "kind": run.kind,
        "variant": run.variant,
        "seed": run.seed,
        "finished": run.finished,
        "diverged": run.diverged,
        "step": run.step,
        "metrics": {k: rounded([v])[0] for k, v in scalar_metrics(run).items()},
        "thresholds": run.limits,
        "heads": None if run.heads is None else _heads(run, run.heads),
        "blocks": None if run.blocks is None else _blocks(run.blocks),
        "labels_by_step": _labels_by_step(run),
        "frequency_by_step": _frequency_by_step(run),
        "sensitivity": _sensitivity(run),
        "maps": None if maps is None else _maps(maps, pictures),
    }
    if run.mass is not None and run.heads is not None:
        content["busiest_images"] = _busiest_images(run.mass, run.image_names)
    return content


def _heads(run: Run, table: pl.DataFrame) -> dict[str, Any]:
    table = table.sort("block", "head")
    counts = {rule: {verdict: table[f"{rule}_{verdict}"].to_list() for verdict in VERDICTS} for rule in run.rules}
    kinds = [KINDS.index(kind) if kind in KINDS else None for kind in table["token_type"].to_list()]
    return {
        "block": table["block"].to_list(),
        "head": table["head"].to_list(),
        "images": int(table["images"][0]),
        "token_type": kinds,
        "counts": counts,
        "quantities": {name: rounded(column(table, name)) for name in QUANTITIES if name in table.columns},
        "sinks": {rule: sinks(run, rule) for rule in run.rules},
        "by_type": {rule: sinks_by_type(run, rule) for rule in run.rules},
    }


def _blocks(table: pl.DataFrame) -> dict[str, list[Any]]:
    table = table.sort("block")
    names = [
        name
        for name in table.columns
        if name.startswith(("mass_", "events_"))
        or (name.startswith("norm_") and name.endswith(("_median", "_p99", "_max", "_outliers")))
    ]
    return {"block": table["block"].to_list(), **{name: rounded(column(table, name)) for name in names}}


def _labels_by_step(run: Run) -> dict[str, dict[str, list[Any]]]:
    found = {rule: steps_of_labels(run, rule) for rule in run.rules or (DEFAULT_RULE, ADAPTIVE_RULE)}
    return {
        rule: {"step": table["step"].to_list(), **{label: rounded(table[label], 3) for label in LABEL_COLORS}}
        for rule, table in found.items()
        if table is not None
    }


def _frequency_by_step(run: Run) -> dict[str, Any] | None:
    """Per rule, one list over steps for each head, in the order of the heads."""
    if run.formation is None:
        return None
    table = run.formation.sort("block", "head", "step")
    steps = table["step"].unique().sort().to_list()
    return {
        "step": steps,
        **{
            rule: [rounded(row, 3) for row in column(table, f"{rule}_frequency").reshape(-1, len(steps))]
            for rule in run.formation_rules
        },
    }


def _sensitivity(run: Run) -> dict[str, dict[str, list[Any]]] | None:
    if run.sensitivity is None:
        return None
    tables = {rule: moves(run.sensitivity, rule) for rule in run.sensitivity["rule"].unique().sort().to_list()}
    return {
        rule: {name: table[name].to_list() for name in table.columns if name not in ("rule", "broadcast_min")}
        for rule, table in tables.items()
    }


def _busiest_images(mass: NDArray[np.float32], names: tuple[str, ...]) -> dict[str, Any]:
    """For every head, in order, the images with most mass on one column, as places in `names`, and that mass."""
    flat = np.nan_to_num(mass.reshape(len(mass), -1), nan=-1)
    order = np.argsort(-flat, axis=0, kind="stable")[:BUSIEST_IMAGES].T
    used = np.unique(order)
    return {
        "names": [names[place] for place in used],
        "places": np.searchsorted(used, order).tolist(),
        "mass": [rounded(row, 3) for row in np.take_along_axis(flat.T, order, axis=1)],
    }


def _maps(maps: Maps, pictures: dict[str, int]) -> dict[str, Any]:
    seen = [pictures.setdefault(data_url(picture_png(picture)), len(pictures)) for picture in maps.pictures]
    heads = [
        {"block": block, "head": head, "images": [_map(maps, place, image) for image in range(len(maps.names))]}
        for place, (block, head) in enumerate(maps.heads)
    ]
    return {"names": list(maps.names), "pictures": seen, "grid": list(maps.grid), "heads": heads}


def _map(maps: Maps, head: int, image: int) -> dict[str, Any]:
    patches, shares = maps.patches(head, image), maps.shares(head, image)
    place, kind, most = maps.strongest(head, image)
    return {
        "map": data_url(map_png(patches)),
        "peak": rounded([patches.max()], 3)[0],
        "shares": dict(zip(shares, rounded(list(shares.values()), 3), strict=True)),
        "strongest": [place, kind, rounded([most], 3)[0]],
    }

"""The data of each run on the page of a report, as plain values: rounded columns, with NaN as null."""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sinkablate.figures.atlas import RANKS, atlas_points, has_atlas, rank_of, values_of
from sinkablate.figures.blocks import with_types
from sinkablate.figures.maps import Maps, data_url, map_png, picture_png
from sinkablate.figures.sensitivity import moves
from sinkablate.figures.sinks import column
from sinkablate.report.events import (
    KINDS,
    LABELS,
    VERDICTS,
    events_per_image,
    logged_rules,
    sinks,
    sinks_by_type,
    steps_of_labels,
)
from sinkablate.report.rounding import rounded
from sinkablate.report.run import Run, scalar_metrics
from sinkablate.report.token_map_panel import page_token_maps

QUANTITIES = {
    "median_mass": "attention mass on the dominant column",
    "median_routed_frac": "share of queries routed to the dominant column",
    "median_ratio_out": "value ratio after the output projection",
    "median_ratio_head": "value ratio before the output projection",
    "median_stable_rank": "stable rank of the update",
    "median_rel_update": "size of the update, relative to the residual stream",
    "median_entropy": "row entropy, relative to uniform",
    "median_gate_open": "mean gate value",
    "median_gate_corr": "correlation of gate and attention to the sink",
    "event_median_ratio_out": "value ratio in events",
    "event_median_stable_rank": "stable rank in events",
    "payload_constancy": "payload constancy over images (chance: 1 / images)",
    "specialisation": "specialization (bits)",
    "location_entropy": "entropy of the sink's position",
    "sink_idx": "most frequent sink column",
}
"""Columns of a head table that the page shows, and their names there."""
BUSIEST_IMAGES = 3
"""Number of images named for each head of a diagnosis, those with the most mass on one column."""


def page_run(run: Run, maps: Maps | None, pictures: dict[str, int]) -> dict[str, Any]:
    """Return the data of one run on the page.

    Args:
        run: The run.
        maps: Attention maps of some of its heads.
        pictures: Maps the data URL of each example image of all runs so far to its index; this run's are added.
    """
    content: dict[str, Any] = {
        "name": run.name,
        "kind": run.kind,
        "variant": run.variant,
        "seed": run.seed,
        "state": run.state,
        "diagnosis_of": run.diagnosis_of,
        "step": run.step,
        "steps": run.steps,
        "tokens": run.tokens,
        "register_name": run.register_name,
        "metrics": {k: rounded([v])[0] for k, v in scalar_metrics(run).items()},
        "heads": None if run.heads is None else _heads(run, run.heads),
        "blocks": None if run.blocks is None else _blocks(with_types(run.blocks, run.tokens, run.dominant)),
        "atlas": None if run.heads is None else _atlas(run, run.heads),
        "labels_by_step": _labels_by_step(run),
        "frequency_by_step": _frequency_by_step(run),
        "sensitivity": _sensitivity(run),
        "edits": _edits(run),
        "final_tokens": run.final_tokens,
        "maps": None if maps is None else _maps(maps, pictures),
        "token_maps": None if run.token_maps is None else page_token_maps(run.token_maps, pictures),
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
        "sinks": {rule: {**sinks(run, rule), "events": events_per_image(run, rule)} for rule in run.rules},
        "by_type": {rule: sinks_by_type(run, rule) for rule in run.rules},
    }


def _atlas(run: Run, table: pl.DataFrame) -> dict[str, dict[str, Any]] | None:
    """For each rule, the content of its atlas; None if the table holds no medians over events."""
    return {rule: _rule_atlas(run, table, rule) for rule in run.rules if has_atlas(table, rule)} or None


def _rule_atlas(run: Run, table: pl.DataFrame, rule: str) -> dict[str, Any]:
    """What `atlas_points` returns, by column, with the limits of the rule on each axis."""
    limits = run.limits_of(rule)
    points = atlas_points(table, rule, limits)
    rank = rank_of(limits, points.columns)
    values = [name for name in values_of(limits) if name in points.columns]
    return {
        "label": points["label"].to_list(),
        "events": points["events"].to_list(),
        "min_events": points["min_events"][0],
        "rank": rounded(column(points, rank)),
        "rank_name": RANKS.get(rank, rank),
        "values": {name: rounded(column(points, name)) for name in values},
        "limits": {"rank": limits.get(rank, {}), **{name: limits.get(name, {}) for name in values}},
    }


def _blocks(table: pl.DataFrame) -> dict[str, list[Any]]:
    table = table.sort("block")
    names = [
        name
        for name in table.columns
        if name.startswith(("mass_", "relative_mass_", "events_", "dominant_", "chance_"))
        or (name.startswith("norm_") and name.endswith(("_median", "_p99", "_max", "_outliers")))
    ]
    return {"block": table["block"].to_list(), **{name: rounded(column(table, name)) for name in names}}


def _labels_by_step(run: Run) -> dict[str, dict[str, list[Any]]]:
    tables = {rule: steps_of_labels(run, rule) for rule in run.rules or logged_rules(run)}
    return {
        rule: {"step": table["step"].to_list(), **{label: rounded(table[label], 3) for label in LABELS}}
        for rule, table in tables.items()
        if table is not None
    }


def _frequency_by_step(run: Run) -> dict[str, Any] | None:
    """For each rule, one list over steps per head, in the order of the heads."""
    if run.formation is None:
        return None
    table = run.formation.sort("block", "head", "step")
    steps = table["step"].unique().sort().to_list()
    rules = [name.removesuffix("_frequency") for name in table.columns if name.endswith("_frequency")]
    return {
        "step": steps,
        **{
            rule: [rounded(row, 3) for row in column(table, f"{rule}_frequency").reshape(-1, len(steps))]
            for rule in rules
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


def _edits(run: Run) -> dict[str, list[Any]] | None:
    if run.edits is None:
        return None
    texts = {name: run.edits[name].to_list() for name in ("block", "head", "edit", "class", "images")}
    return texts | {name: rounded(column(run.edits, name)) for name in ("effect", "effect_low", "effect_high")}


def _busiest_images(mass: NDArray[np.float32], names: tuple[str, ...]) -> dict[str, Any]:
    """For every head, in order, the images with the most mass on one column, as indices into `names`, and that mass."""
    flat = np.nan_to_num(mass.reshape(len(mass), -1), nan=-1)
    order = np.argsort(-flat, axis=0, kind="stable")[:BUSIEST_IMAGES].T
    used = np.unique(order)
    return {
        "names": [names[index] for index in used],
        "indices": np.searchsorted(used, order).tolist(),
        "mass": [rounded(row, 3) for row in np.take_along_axis(flat.T, order, axis=1)],
    }


def _maps(maps: Maps, pictures: dict[str, int]) -> dict[str, Any]:
    shown = [pictures.setdefault(data_url(picture_png(picture)), len(pictures)) for picture in maps.pictures]
    heads = [
        {"block": block, "head": head, "images": [_map(maps, index, image) for image in range(len(maps.names))]}
        for index, (block, head) in enumerate(maps.heads)
    ]
    return {"rule": maps.rule, "names": list(maps.names), "pictures": shown, "grid": list(maps.grid), "heads": heads}


def _map(maps: Maps, head: int, image: int) -> dict[str, Any]:
    patches, shares = maps.patches(head, image), maps.shares(head, image)
    column_index, kind, share = maps.strongest(head, image)
    return {
        "map": data_url(map_png(patches)),
        "peak": rounded([patches.max()], 3)[0],
        "shares": dict(zip(shares, rounded(list(shares.values()), 3), strict=True)),
        "strongest": [column_index, kind, rounded([share], 3)[0]],
    }

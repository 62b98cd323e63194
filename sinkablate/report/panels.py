"""Figures with one frame or row per variant, on common axes: the drawing functions on the tables of runs."""

from collections.abc import Mapping, Sequence

import polars as pl

from sinkablate.diagnostics.counting import DEFAULT_BLOCKS
from sinkablate.figures import atlas as atlases
from sinkablate.figures import blocks
from sinkablate.figures import frequency as frequencies
from sinkablate.figures.blocks import Variants, band, draw_band
from sinkablate.figures.sensitivity import MOVES, draw_moves, moves
from sinkablate.figures.sinks import LABEL_COLORS, Drawn, Names, column, say
from sinkablate.report.events import steps_of_labels
from sinkablate.report.frames import frames, keyed, label_axes, named
from sinkablate.report.run import Run

MOST_VARIANTS = 12
"""Largest number of variants in a figure."""


def by_variant(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Group the runs of `fit` by variant; a diagnosis, which has no seed, is a group of its own.

    At most `MOST_VARIANTS` groups are returned, the first ones. A group of one run has the name of the run.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.variant, "" if run.kind == "run" else run.name), []).append(run)
    shown = list(groups.items())[:MOST_VARIANTS]
    return {
        group[0].name if len(group) == 1 else f"{variant}, {len(group)} seeds": group for (variant, _), group in shown
    }


def null_names(groups: Mapping[str, Sequence[Run]]) -> dict[str, Names]:
    """Variant -> the name of its prefix tokens, if they are not registers."""
    return {
        name: {} if run.register_name == "register" else {"register": run.register_name}
        for name, (run, *_) in groups.items()
    }


def _blocks(groups: Mapping[str, Sequence[Run]]) -> Variants:
    return {
        name: [blocks.with_types(run.blocks, run.tokens, run.dominant) for run in group if run.blocks is not None]
        for name, group in groups.items()
    }


def _heads(groups: Mapping[str, Sequence[Run]]) -> dict[str, list[pl.DataFrame]]:
    return {name: [run.heads for run in group if run.heads is not None] for name, group in groups.items()}


def handoff(runs: Sequence[Run], rule: str) -> Drawn | None:
    """Draw which type of token dominates, which receives the events, and the mass of one token, block by block."""
    groups = by_variant([run for run in runs if run.blocks is not None])
    return blocks.handoff(_blocks(groups), rule, null_names(groups)) if groups else None


def frequency(runs: Sequence[Run], rule: str) -> Drawn | None:
    """Draw how often each head of each block has an event."""
    groups = by_variant([run for run in runs if rule in run.rules])
    return frequencies.frequency(_heads(groups), rule) if groups else None


def entropy(runs: Sequence[Run]) -> Drawn | None:
    """Draw the entropy of the dominant column over images, block by block."""
    groups = by_variant([run for run in runs if run.heads is not None and "location_entropy" in run.heads.columns])
    return blocks.location_entropy(_heads(groups)) if groups else None


def atlas(runs: Sequence[Run], rule: str) -> Drawn | None:
    """Draw the rank of every head's update against what its sink writes."""
    groups = by_variant([run for run in runs if run.heads is not None and atlases.has_atlas(run.heads, rule)])
    if not groups:
        return None
    limits = {name: group[0].limits_of(rule) for name, group in groups.items()}
    points = {
        name: [atlases.atlas_points(table, rule, limits[name]) for table in tables]
        for name, tables in _heads(groups).items()
    }
    return atlases.atlas(points, rule, limits)


def token_norms(runs: Sequence[Run]) -> Drawn | None:
    """Draw token norms by block and token type."""
    groups = by_variant([run for run in runs if run.blocks is not None])
    return blocks.token_norms(_blocks(groups), null_names(groups)) if groups else None


def formation(runs: Sequence[Run], rule: str) -> Drawn | None:
    """Draw events per image by label over training steps, mean over the runs of a variant with their range."""
    tables = {run.name: table for run in runs if (table := steps_of_labels(run, rule)) is not None}
    groups = by_variant([run for run in runs if run.name in tables])
    if not groups:
        return None
    figure, axes = frames(list(groups), columns=3)
    rows = []
    for axis, (name, group) in zip(axes, groups.items(), strict=True):
        of_runs = _at_common_steps([tables[run.name] for run in group])
        steps = column(of_runs[0], "step")
        for label, color in LABEL_COLORS.items():
            values = band(of_runs, label)
            draw_band(axis, steps, values, color, label.replace("nop", "NOP"))
            rows.append(_steps(name, label, of_runs, values))
        if not any(column(table, label).any() for table in of_runs for label in LABEL_COLORS):
            say(axis, "no events")
    axes[0].set_ylim(bottom=0)
    label_axes(figure, "optimizer step", f"sink events per image, rule {rule}")
    keyed(figure, axes)
    return figure, pl.concat(rows)


def _at_common_steps(tables: Sequence[pl.DataFrame]) -> list[pl.DataFrame]:
    """The rows at the steps that all runs logged; if there is no such step, those of the first run."""
    common = set(tables[0]["step"]).intersection(*(set(table["step"]) for table in tables[1:]))
    if not common:
        return [tables[0]]
    return [table.filter(pl.col("step").is_in(list(common))).unique("step").sort("step") for table in tables]


def _steps(name: str, label: str, tables: Sequence[pl.DataFrame], values: blocks.Band) -> pl.DataFrame:
    return tables[0].select(
        pl.lit(name).alias("variant"),
        pl.lit(label).alias("label"),
        "step",
        mean=values.mean,
        low=values.low,
        high=values.high,
        runs=pl.lit(len(tables)),
    )


def sensitivity(runs: Sequence[Run], rule: str) -> Drawn | None:
    """Draw events and labels while one threshold moves, one row of frames per variant, a band over its seeds."""
    groups = by_variant([run for run in runs if run.sensitivity is not None and rule in run.sensitivity["rule"]])
    if not groups:
        return None
    tables = {
        name: [(run, moves(run.sensitivity, rule)) for run in group if run.sensitivity is not None]
        for name, group in groups.items()
    }
    drawn = {
        name: [table for _, table in pairs if table.select(*MOVES).equals(pairs[0][1].select(*MOVES))]
        for name, pairs in tables.items()
    }
    titles = []
    for name, pairs in tables.items():
        other = "" if len(drawn[name]) == len(pairs) else f" ({len(drawn[name])} of {len(pairs)}: other thresholds)"
        titles += [name + other, *[""] * (len(MOVES) - 1)]
    figure, axes = frames(titles, share=False, columns=len(MOVES))
    for row, same in enumerate(drawn.values()):
        draw_moves(axes[row * len(MOVES) : (row + 1) * len(MOVES)], same)
    counted = {
        str(run.summary.get("counted_blocks", DEFAULT_BLOCKS)): None for group in groups.values() for run in group
    }
    label_axes(figure, "threshold (dashed: the rule's own)", f"per image, {' or '.join(counted)}, rule {rule}")
    rows = [named(table, run) for pairs in tables.values() for run, table in pairs]
    keyed(figure, axes)
    return figure, pl.concat(rows, how="vertical_relaxed")

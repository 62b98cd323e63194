"""Figures with one frame per run or variant, on common axes."""

from collections.abc import Sequence
from math import ceil

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from sinkablate.figures.sinks import (
    LABEL_COLORS,
    MOVES,
    TYPE_COLORS,
    TYPE_MARKERS,
    Drawn,
    draw_moves,
    moves,
    say,
    whole_numbers,
)
from sinkablate.report.events import column, steps_of_labels
from sinkablate.report.frames import frames, keyed, label_axes, named, some_runs
from sinkablate.report.run import Run, kind_names


def handoff(runs: Sequence[Run], rule: str) -> Drawn | None:
    """Draw the share of the attention mass and of the events of a rule by token type and block.

    Solid: mass. Dotted: events. Thin and dashed: the share of the tokens that are of this type, which mass would have
    if attention were uniform; drawn where the number of tokens is known.
    """
    some, part = some_runs([run for run in runs if run.blocks is not None])
    if not some:
        return None
    figure, axes = frames([run.name for run in some])
    rows = []
    for axis, run in zip(axes, some, strict=True):
        assert run.blocks is not None
        table = run.blocks.sort("block")
        columns = ["block"]
        for prefix, style, text in (("mass_", "-", "mass"), (f"events_{rule}_", ":", "events")):
            for kind in (kind for kind in run.token_types if _has_values(table, f"{prefix}{kind}")):
                columns.append(f"{prefix}{kind}")
                axis.plot(
                    table["block"],
                    column(table, columns[-1]),
                    style,
                    color=TYPE_COLORS[kind],
                    linewidth=1.2,
                    marker=TYPE_MARKERS[kind],
                    markersize=3,
                    label=f"{kind_names([run])[kind]}, {text}",
                )
        chance = chance_levels(run)
        for kind, level in chance.items():
            label = f"{kind_names([run])[kind]}, chance"
            axis.axhline(level, color=TYPE_COLORS[kind], linestyle="--", linewidth=0.6, label=label)
        axis.set_ylim(-0.03, 1.03)
        whole_numbers(axis)
        levels = [pl.lit(level).alias(f"chance_{kind}") for kind, level in chance.items()]
        rows.append(named(table.select(*columns, *levels), run))
    label_axes(figure, "block (block 0 reads raw patch embeddings)", f"share of mass, and of events (rule {rule})")
    keyed(figure, axes, part)
    return figure, pl.concat(rows, how="diagonal_relaxed")


def chance_levels(run: Run) -> dict[str, float]:
    """Share of the key columns that are of each type; empty if their number is unknown."""
    total = sum(run.tokens.values())
    return {kind: count / total for kind, count in run.tokens.items()}


def frequency(runs: Sequence[Run], rule: str) -> Drawn | None:
    """Draw how often each head of each block has an event."""
    some, part = some_runs([run for run in runs if run.heads is not None and rule in run.rules])
    if not some:
        return None
    figure, axes = frames([run.name for run in some], share=False)
    rows, image = [], None
    for axis, run in zip(axes, some, strict=True):
        assert run.heads is not None
        table = run.heads.sort("block", "head").select("block", "head", "images", f"{rule}_frequency")
        blocks, heads = table["block"].unique().sort().to_list(), table["head"].n_unique()
        values = column(table, f"{rule}_frequency").reshape(len(blocks), heads)
        image = axis.imshow(values, vmin=0, vmax=1, cmap="viridis", origin="lower", aspect="auto")
        step = ceil(len(blocks) / 8)
        axis.set_yticks(range(0, len(blocks), step), [str(block) for block in blocks[::step]])
        whole_numbers(axis)
        if not (values > 0).any():
            say(axis, "no event in any head", color="white")
        rows.append(named(table, run))
    assert image is not None
    figure.colorbar(image, ax=axes, shrink=0.8).set_label(f"share of images with an event, rule {rule}", fontsize=8)
    label_axes(figure, "head", "block")
    keyed(figure, axes, part)
    return figure, pl.concat(rows, how="vertical_relaxed")


def atlas(runs: Sequence[Run], rule: str) -> Drawn | None:
    """Draw value ratio against stable rank of every head, medians over all images; gray heads have no event."""
    some, part = some_runs(
        [run for run in runs if run.heads is not None and rule in run.rules and "median_ratio_out" in run.heads.columns]
    )
    if not some:
        return None
    figure, axes = frames([run.name for run in some])
    judged = [tuple(run.limits.values()) for run in some]
    edges = (
        "thresholds: NOP ≤ {:g} | broadcast ≥ {:g}, rank ≤ {:g}".format(*judged[0])
        if len(set(judged)) == 1
        else "thresholds of each run: NOP up to the first line, broadcast from the second, up to that rank"
    )
    rows = []
    for axis, run, (nop_max, broadcast_min, rank_max) in zip(axes, some, judged, strict=True):
        table = labeled(run, rule)
        for edge in (nop_max, broadcast_min):
            axis.axvline(edge, color="#777777", linewidth=0.7, linestyle="--", label=edges)
        axis.axhline(rank_max, color="#777777", linewidth=0.7, linestyle="--")
        for label, kind in sorted(set(table.select("label", "token_type").rows()), key=lambda pair: pair[0] != "none"):
            points = table.filter((pl.col("label") == label) & (pl.col("token_type") == kind))
            gray = label == "none"
            axis.scatter(
                points["median_ratio_out"],
                points["median_stable_rank"],
                s=5 if gray else 18,
                alpha=0.8,
                color="#BBBBBB" if gray else LABEL_COLORS[label],
                marker="." if gray else TYPE_MARKERS[kind],
                label="no event" if gray else f"{label}, {kind_names([run])[kind]}",
            )
        rows.append(named(table, run))
    axes[0].set_xlim(left=0)  # after all points are drawn, because the frames share their axes
    _plain_log(axes)
    label_axes(figure, "value ratio ‖u_s‖ / mean ‖u_j‖, median", f"stable rank, median (labels: rule {rule})")
    keyed(figure, axes, part)
    return figure, pl.concat(rows, how="vertical_relaxed")


def _has_values(table: pl.DataFrame, name: str) -> bool:
    """Whether a column exists and has a number that is not NaN."""
    return name in table.columns and not np.isnan(column(table, name)).all()


def _plain_log(axes: Sequence[Axes]) -> None:
    """Make y logarithmic, with ticks at plain numbers."""
    for axis in axes:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_locator(NullLocator())


def labeled(run: Run, rule: str) -> pl.DataFrame:
    """Every head with its events and its commonest label, which is `none` without an event."""
    assert run.heads is not None
    labels = list(LABEL_COLORS)
    counts = [pl.col(f"{rule}_{label}") for label in labels]
    best = pl.concat_list(counts).list.arg_max().replace_strict(dict(enumerate(labels)), return_dtype=pl.String)
    return run.heads.select(
        "block",
        "head",
        "token_type",
        "median_ratio_out",
        "median_stable_rank",
        pl.sum_horizontal(counts).alias("events"),
        *(c.alias(name) for c, name in zip(counts, labels, strict=True)),
        pl.when(pl.sum_horizontal(counts) > 0).then(best).otherwise(pl.lit("none")).alias("label"),
    )


def token_norms(runs: Sequence[Run]) -> Drawn | None:
    """Draw token norms by block and token type, one frame per variant and one line per run."""
    measured = [run for run in runs if run.blocks is not None]
    names = list(dict.fromkeys(run.variant for run in measured))
    if not measured:
        return None
    figure, axes = frames(names)
    rows = []
    for run in measured:
        assert run.blocks is not None
        table, axis, columns = run.blocks.sort("block"), axes[names.index(run.variant)], ["block"]
        for kind in ("cls", "register", "patch"):
            for stat, style in (("median", "-"), ("p99", ":")):
                name = f"norm_{kind}_{stat}"
                if _has_values(table, name):
                    axis.plot(
                        table["block"],
                        column(table, name),
                        style,
                        color=TYPE_COLORS[kind],
                        linewidth=1,
                        label=f"{kind_names([run])[kind]}, {stat}",
                    )
                    columns += [name] if stat == "p99" else [name, f"norm_{kind}_max", f"norm_{kind}_outliers"]
        whole_numbers(axis)
        rows.append(named(table.select(columns), run))
    _plain_log(axes)
    label_axes(figure, "block", "L2 norm of the block's output,\nbefore the final norm")
    keyed(figure, axes)
    return figure, pl.concat(rows, how="diagonal_relaxed")


def formation(runs: Sequence[Run], rule: str) -> Drawn | None:
    """Draw events per image by label over training steps."""
    of_run = {run.name: table for run in runs if (table := steps_of_labels(run, rule)) is not None}
    some, part = some_runs([run for run in runs if run.name in of_run])
    if not some:
        return None
    tables = [(run, of_run[run.name]) for run in some]
    figure, axes = frames([run.name for run, _ in tables])
    for axis, (_, table) in zip(axes, tables, strict=True):
        for label, color in LABEL_COLORS.items():
            axis.plot(table["step"], table[label], color=color, linewidth=1.3, marker=".", markersize=5, label=label)
        if not any(column(table, label).any() for label in LABEL_COLORS):
            say(axis, "no events")
    axes[0].set_ylim(bottom=0)
    label_axes(figure, "optimizer step", f"sink events per image, rule {rule}")
    keyed(figure, axes, part)
    return figure, pl.concat([named(table, run) for run, table in tables], how="vertical_relaxed")


def sensitivity(runs: Sequence[Run], rule: str) -> Drawn | None:
    """Draw events and labels while one threshold moves, one row of frames per diagnosis."""
    some, part = some_runs([run for run in runs if run.sensitivity is not None and rule in run.sensitivity["rule"]])
    if not some:
        return None
    figure, axes = frames(
        [run.name if not index else "" for run in some for index in range(len(MOVES))], share=False, columns=len(MOVES)
    )
    rows = []
    for row, run in enumerate(some):
        assert run.sensitivity is not None
        table = moves(run.sensitivity, rule)
        draw_moves(axes[row * len(MOVES) : (row + 1) * len(MOVES)], table)
        rows.append(named(table, run))
    label_axes(figure, "threshold (dashed: the rule's own)", f"per image, blocks ≥ 1, rule {rule}")
    keyed(figure, axes, part)
    return figure, pl.concat(rows, how="vertical_relaxed")

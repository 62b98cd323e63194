"""Figures with one frame per run or variant, on common axes."""

from collections.abc import Sequence

import polars as pl

from sinkablate.figures.sensitivity import MOVES, draw_moves, moves
from sinkablate.figures.sinks import (
    LABEL_COLORS,
    TYPE_COLORS,
    Drawn,
    column,
    draw_atlas,
    draw_by_type,
    draw_heads,
    draw_token_norms,
    plain_log,
    say,
)
from sinkablate.report.events import LABELS, steps_of_labels
from sinkablate.report.frames import frames, keyed, label_axes, named, some_runs
from sinkablate.report.run import Run


def handoff(runs: Sequence[Run], rule: str) -> Drawn | None:
    """Draw the share of the attention mass and of the events of a rule by token type and block.

    Solid lines show mass, dotted lines events. Thin dashed lines show the share of tokens of each type, which is the
    mass that they would receive from uniform attention; they need the number of tokens, which some runs do not record.
    """
    shown_runs, part = some_runs([run for run in runs if run.blocks is not None])
    if not shown_runs:
        return None
    figure, axes = frames([run.name for run in shown_runs])
    rows = []
    for axis, run in zip(axes, shown_runs, strict=True):
        assert run.blocks is not None
        table, names = run.blocks.sort("block"), _null_names(run)
        drawn = draw_by_type(axis, table, "mass_", names=names, note="mass")
        drawn += draw_by_type(axis, table, f"events_{rule}_", names=names, style=":", note="events")
        chance = chance_levels(run)
        for kind, level in chance.items():
            label = f"{names.get(kind, kind)}, chance"
            axis.axhline(level, color=TYPE_COLORS[kind], linestyle="--", linewidth=0.6, label=label)
        levels = [pl.lit(level).alias(f"chance_{kind}") for kind, level in chance.items()]
        rows.append(named(table.select("block", *drawn, *levels), run))
    label_axes(figure, "block (block 0 reads raw patch embeddings)", f"share of mass, and of events (rule {rule})")
    keyed(figure, axes, part)
    return figure, pl.concat(rows, how="diagonal_relaxed")


def chance_levels(run: Run) -> dict[str, float]:
    """Share of the key columns that are of each type; empty if their number is unknown."""
    total = sum(run.tokens.values())
    return {kind: count / total for kind, count in run.tokens.items()}


def _null_names(run: Run) -> dict[str, str]:
    """The name of the prefix tokens of a model in which they are not registers."""
    return {} if run.register_name == "register" else {"register": run.register_name}


def frequency(runs: Sequence[Run], rule: str) -> Drawn | None:
    """Draw how often each head of each block has an event."""
    shown_runs, part = some_runs([run for run in runs if run.heads is not None and rule in run.rules])
    if not shown_runs:
        return None
    figure, axes = frames([run.name for run in shown_runs], share=False)
    rows, image = [], None
    for axis, run in zip(axes, shown_runs, strict=True):
        assert run.heads is not None
        table = run.heads.sort("block", "head").select("block", "head", "images", f"{rule}_frequency")
        image = draw_heads(axis, table, f"{rule}_frequency")
        rows.append(named(table, run))
    assert image is not None
    figure.colorbar(image, ax=axes, shrink=0.8).set_label(f"share of images with an event, rule {rule}", fontsize=8)
    label_axes(figure, "head", "block")
    keyed(figure, axes, part)
    return figure, pl.concat(rows, how="vertical_relaxed")


def atlas(runs: Sequence[Run], rule: str) -> Drawn | None:
    """Draw value ratio against stable rank of every head, medians over all images; gray heads have no event."""
    shown_runs, part = some_runs(
        [run for run in runs if run.heads is not None and rule in run.rules and "median_ratio_out" in run.heads.columns]
    )
    if not shown_runs:
        return None
    figure, axes = frames([run.name for run in shown_runs])
    rows = []
    for axis, run in zip(axes, shown_runs, strict=True):
        table = labeled(run, rule)
        names = {"ratio": table["median_ratio_out"], "rank": table["median_stable_rank"]}
        types = table["token_type"].replace(_null_names(run) and {"register": "null"})
        draw_atlas(axis, table.select("label").with_columns(**names, token_type=types), run.limits)
        rows.append(named(table, run))
    for axis in axes:
        plain_log(axis)
    label_axes(figure, "value ratio ‖u_s‖ / mean ‖u_j‖, median", f"stable rank, median (labels: rule {rule})")
    keyed(figure, axes, part)
    return figure, pl.concat(rows, how="vertical_relaxed")


def labeled(run: Run, rule: str) -> pl.DataFrame:
    """Every head with its events and its commonest label, which is `none` without an event."""
    assert run.heads is not None
    counts = [pl.col(f"{rule}_{label}") for label in LABELS]
    best = pl.concat_list(counts).list.arg_max().replace_strict(dict(enumerate(LABELS)), return_dtype=pl.String)
    return run.heads.select(
        "block",
        "head",
        "token_type",
        "median_ratio_out",
        "median_stable_rank",
        pl.sum_horizontal(counts).alias("events"),
        *(count.alias(label) for count, label in zip(counts, LABELS, strict=True)),
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
        table = run.blocks.sort("block")
        drawn = draw_token_norms(axes[names.index(run.variant)], table, names=_null_names(run))
        columns = [f"norm_{kind}_{stat}" for kind in drawn for stat in ("median", "p99", "max", "outliers")]
        rows.append(named(table.select("block", *columns), run))
    for axis in axes:
        plain_log(axis)
    label_axes(figure, "block", "L2 norm of the block's output,\nbefore the final norm")
    keyed(figure, axes)
    return figure, pl.concat(rows, how="diagonal_relaxed")


def formation(runs: Sequence[Run], rule: str) -> Drawn | None:
    """Draw events per image by label over training steps."""
    of_run = {run.name: table for run in runs if (table := steps_of_labels(run, rule)) is not None}
    shown_runs, part = some_runs([run for run in runs if run.name in of_run])
    if not shown_runs:
        return None
    tables = [(run, of_run[run.name]) for run in shown_runs]
    figure, axes = frames([run.name for run, _ in tables])
    for axis, (_, table) in zip(axes, tables, strict=True):
        for label, color in LABEL_COLORS.items():
            axis.plot(
                table["step"],
                table[label],
                color=color,
                linewidth=1.3,
                marker=".",
                markersize=5,
                label=label.replace("nop", "NOP"),
            )
        if not any(column(table, label).any() for label in LABEL_COLORS):
            say(axis, "no events")
    axes[0].set_ylim(bottom=0)
    label_axes(figure, "optimizer step", f"sink events per image, rule {rule}")
    keyed(figure, axes, part)
    return figure, pl.concat([named(table, run) for run, table in tables], how="vertical_relaxed")


def sensitivity(runs: Sequence[Run], rule: str) -> Drawn | None:
    """Draw events and labels as one threshold varies, one row of frames per diagnosis."""
    shown_runs, part = some_runs(
        [run for run in runs if run.sensitivity is not None and rule in run.sensitivity["rule"]]
    )
    if not shown_runs:
        return None
    figure, axes = frames(
        [run.name if not index else "" for run in shown_runs for index in range(len(MOVES))],
        share=False,
        columns=len(MOVES),
    )
    rows = []
    for row, run in enumerate(shown_runs):
        assert run.sensitivity is not None
        table = moves(run.sensitivity, rule)
        draw_moves(axes[row * len(MOVES) : (row + 1) * len(MOVES)], table)
        rows.append(named(table, run))
    label_axes(figure, "threshold (dashed: the rule's own)", f"per image, blocks ≥ 1, rule {rule}")
    keyed(figure, axes, part)
    return figure, pl.concat(rows, how="vertical_relaxed")

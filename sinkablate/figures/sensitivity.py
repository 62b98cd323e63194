"""How events and labels change when a threshold moves."""

from collections.abc import Sequence

import polars as pl
from matplotlib.axes import Axes

from sinkablate.figures.blocks import band, draw_band
from sinkablate.figures.sinks import LABEL_COLORS, LIMIT_COLOR, TWO_COLUMNS, Drawn, column, common_legend, new_axes, say

MOVES = {
    "routed_min": "attention that\nroutes a query",
    "event_min": "routed queries of\nan event, at least",
    "nop_max": "value ratio of NOP, at most",
    "rank_max": "rank of broadcast,\nat most",
}
"""Thresholds that the sensitivity figure moves, one at a time; the two limits of the value ratio move together."""
BOTH_LIMITS = "value ratio: limits\nof NOP and, below,\nof broadcast, together"


def moves(table: pl.DataFrame, rule: str) -> pl.DataFrame:
    """Rows of a sensitivity table in which one threshold, named in column `axis`, varies and the others are fixed."""
    of_rule = table.filter(pl.col("rule") == rule)
    home = of_rule.filter(pl.col("steps") == 0)
    lines = []
    for name in MOVES:
        fixed = [other for other in MOVES if other != name]
        line = of_rule.filter(pl.all_horizontal(pl.col(other) == home[other][0] for other in fixed)).sort(name)
        lines.append(line.with_columns(pl.lit(name).alias("axis")))
    return pl.concat(lines)


def draw_moves(axes: Sequence[Axes], tables: Sequence[pl.DataFrame]) -> None:
    """Draw events and labels per image from `moves`, one threshold per axis; dashed lines mark the rule's own value.

    The ticks of the value ratio are the limit of NOP and, below it, the limit of broadcast.

    Args:
        axes: One axis per threshold.
        tables: Rows of `moves` of one or several runs with the same thresholds; for several, lines are means, and
            bands reach from the least to the greatest.
    """
    home = tables[0].filter(pl.col("steps") == 0)
    for axis, (name, label) in zip(axes, MOVES.items(), strict=True):
        lines = [table.filter(pl.col("axis") == name) for table in tables]
        steps, events = column(lines[0], name), band(lines, "events").mean
        axis.plot(steps, events, color="black", linewidth=4, alpha=0.25, label="events")
        for kind, color in LABEL_COLORS.items():
            draw_band(axis, steps, band(lines, kind), color, kind.replace("nop", "NOP"))
        axis.axvline(home[name][0], color=LIMIT_COLOR, linestyle="--", linewidth=0.8, label="the rule's own value")
        axis.set_xlabel(label)
        if name == "nop_max":
            axis.set_xlabel(BOTH_LIMITS)
            pairs = lines[0].select(name, "broadcast_min").rows()
            axis.set_xticks([nop for nop, _ in pairs], [f"{nop:.2g}\n{broadcast:.2g}" for nop, broadcast in pairs])
        axis.set_ylim(bottom=0)
        if not (events > 0).any():
            axis.set_ylim(0, 1)
            say(axis, "no event at any of these")


def sensitivity(table: pl.DataFrame, blocks: str = "blocks ≥ 1") -> Drawn:
    """Draw events and labels per image while one threshold moves and the others stay, one row of panels per rule.

    Args:
        table: The counts, one row per rule and point of the grid of thresholds.
        blocks: The blocks that are counted.
    """
    rules = table["rule"].unique(maintain_order=True).to_list()
    title = "How the counts change when one threshold moves (flat lines: hardly at all)"
    figure, axes = new_axes(len(rules), len(MOVES), (TWO_COLUMNS, 0.9 + 2.2 * len(rules)), title)
    rows = []
    for row, rule in enumerate(rules):
        data = moves(table, rule)
        of_rule = axes[row * len(MOVES) : (row + 1) * len(MOVES)]
        draw_moves(of_rule, [data])
        of_rule[0].set_ylabel(f"rule {rule}:\nper image, {blocks}")
        rows.append(data)
    common_legend(figure, axes, columns=5)
    return figure, pl.concat(rows)

"""The figures of one diagnosis, from its tables; each is returned with the data it shows."""

from collections.abc import Mapping, Sequence

import polars as pl

from sinkablate.figures.sensitivity import MOVES, draw_moves, moves
from sinkablate.figures.sinks import (
    LABEL_COLORS,
    TEXT_SIZE,
    TYPE_COLORS,
    Drawn,
    Names,
    common_legend,
    draw_atlas,
    draw_by_type,
    draw_heads,
    draw_token_norms,
    has_numbers,
    new_axes,
    plain_log,
    say,
)


def handoff(blocks: pl.DataFrame, rules: Sequence[str], names: Names | None = None) -> Drawn:
    """Draw which tokens receive the attention, block by block: share of the mass, and of the events of each rule.

    Args:
        blocks: One row per block.
        rules: Names of the rules; one panel each.
        names: What the token types are called.
    """
    kinds = [kind for kind in TYPE_COLORS if has_numbers(blocks, f"mass_{kind}")]
    panels = {"mass_": "attention mass"} | {f"events_{rule}_": f"sink events, rule {rule}" for rule in rules}
    title = "Which type of token receives the attention and is the sink, block by block"
    figure, axes = new_axes(1, len(panels), (2.6 * len(panels), 3), title)
    for axis, (prefix, label) in zip(axes, panels.items(), strict=True):
        if not draw_by_type(axis, blocks, prefix, names=names):
            say(axis, "no event in any block")
        axis.set_title(label, fontsize=9)
        axis.set(xlabel="block (0 reads raw patch embeddings)", ylabel="share, 0 to 1", xlim=axes[0].get_xlim())
    common_legend(figure, axes, columns=len(kinds), title="token type")
    return figure, blocks.select("block", *(f"{prefix}{kind}" for prefix in panels for kind in kinds))


def frequency(heads: pl.DataFrame, rules: Sequence[str]) -> Drawn:
    """Draw how often each head of each block has a sink event, one panel per rule."""
    data = heads.select("block", "head", *(f"{rule}_frequency" for rule in rules)).sort("block", "head")
    rows, columns = data["block"].n_unique(), data["head"].n_unique()
    width, height = max(3.5, 0.8 + 0.25 * columns), max(2.8, 1.2 + 0.22 * rows)
    title = "Which heads sink, and on how many of the images"
    figure, axes = new_axes(1, len(rules), (width * len(rules), height), title)
    for axis, rule in zip(axes, rules, strict=True):
        image = draw_heads(axis, data, f"{rule}_frequency")
        axis.set(xlabel="head", ylabel="block")
        axis.set_title(f"rule {rule}", fontsize=9)
    bar = figure.colorbar(image, ax=axes)
    bar.set_label("share of images with an event", fontsize=TEXT_SIZE)
    bar.ax.tick_params(labelsize=TEXT_SIZE)
    return figure, data


def atlas(heads: pl.DataFrame, rule: str, min_events: int, limits: Mapping[str, float]) -> Drawn:
    """Draw the value ratio against the stable rank of every head.

    Heads with enough events: medians over those, colored by the most frequent label, marked by token type. The
    others: medians over all images, small and gray.

    Args:
        heads: One row per block and head.
        rule: The rule of the columns `event_median_*`.
        min_events: Number of events from which a head is colored.
        limits: `nop_max`, `broadcast_min` and `rank_max` of the rule.
    """
    counts = [pl.col(f"{rule}_{label}") for label in LABEL_COLORS]
    most = pl.concat_list(counts).list.arg_max().replace_strict(dict(enumerate(LABEL_COLORS)), return_dtype=pl.String)
    medians = ("event_median_ratio_out", "event_median_stable_rank", "median_ratio_out", "median_stable_rank")
    data = heads.with_columns(events=pl.sum_horizontal(counts)).select(
        "block",
        "head",
        "events",
        pl.when(pl.col("events") > 0).then(most).otherwise(pl.lit("none")).alias("label"),
        "token_type",
        *medians,
    )
    enough = (pl.col("events") >= min_events) & (pl.col("events") > 0)
    points = data.select(
        "token_type",
        label=pl.when(enough).then("label").otherwise(pl.lit("none")),
        ratio=pl.when(enough).then("event_median_ratio_out").otherwise("median_ratio_out"),
        rank=pl.when(enough).then("event_median_stable_rank").otherwise("median_stable_rank"),
    )
    title = (
        "What the sinks do: NOP at the left, broadcast at the lower right\n"
        f"(colored: {len(data.filter(enough))} of {len(data)} heads, with at least {min_events} {rule} events)"
    )
    figure, (axis,) = new_axes(1, 1, (6.4, 5), title)
    draw_atlas(axis, points, limits, rest=f"fewer than {min_events} events")
    plain_log(axis)
    axis.set(
        xlabel="value ratio ‖u_s‖ / mean ‖u_j‖: what the sink writes relative to other tokens (median)",
        ylabel="stable rank of the head's update (median)",
    )
    common_legend(figure, [axis], columns=3)
    return figure, data


def token_norms(blocks: pl.DataFrame, names: Names | None = None) -> Drawn:
    """Draw the token norms of each block's output, before the final norm, by token type."""
    figure, (axis,) = new_axes(1, 1, (6.4, 3.8), "How large the tokens of each type become, block by block")
    kinds = draw_token_norms(axis, blocks, names=names)
    plain_log(axis)
    axis.set(xlabel="block", ylabel="L2 norm of the block's output,\nbefore the final norm")
    common_legend(figure, [axis], columns=2)
    statistics = ("mean", "median", "p99", "max", "outliers")
    return figure, blocks.select("block", *(f"norm_{kind}_{name}" for kind in kinds for name in statistics))


def sensitivity(table: pl.DataFrame) -> Drawn:
    """Draw events and labels per image while one threshold moves and the others stay, one row of panels per rule."""
    rules = table["rule"].unique(maintain_order=True).to_list()
    title = "How the counts change when one threshold moves (flat lines: hardly at all)"
    figure, axes = new_axes(len(rules), len(MOVES), (8, 0.9 + 2.2 * len(rules)), title)
    rows = []
    for row, rule in enumerate(rules):
        data = moves(table, rule)
        of_rule = axes[row * len(MOVES) : (row + 1) * len(MOVES)]
        draw_moves(of_rule, data)
        of_rule[0].set_ylabel(f"rule {rule}:\nper image, blocks ≥ 1")
        rows.append(data)
    common_legend(figure, axes, columns=5)
    return figure, pl.concat(rows)

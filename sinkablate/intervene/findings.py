"""The finding of an intervention in one line."""

import math
from collections.abc import Sequence

import polars as pl

from sinkablate.config import SelectionConfig
from sinkablate.intervene.controls import Outcome
from sinkablate.intervene.edits import judged_by
from sinkablate.intervene.validation import FEWEST, FEWEST_BLOCKS


def headline(chosen: int, validation: pl.DataFrame, controls: Sequence[Outcome], selection: SelectionConfig) -> str:
    """Return one line: failed controls first, then how well the labels predict the effects.

    Args:
        chosen: Number of heads that were chosen.
        validation: The validation table.
        controls: The outcomes of all three controls.
        selection: How the heads were chosen; holds the number of events that a head must have.
    """
    failed = [f"{control.name} ({control.says})" for control in controls if control.passed is False]
    warning = f"CONTROL FAILED: {'; '.join(failed)}. " if failed else ""
    if not chosen:
        return f"{warning}No head has {selection.min_events} events (selection.min_events): no label to validate."
    return warning + (_worth(validation) if len(validation) else "No head could be edited.")


def _worth(validation: pl.DataFrame) -> str:
    row = validation.row(by_predicate=pl.col("edit") == judged_by(validation["edit"].to_list()), named=True)
    counted = f"{row['broadcast_heads']} broadcast and {row['nop_heads']} NOP heads"
    if math.isnan(row["auc"]):
        return f"Label validation: NA, {counted} with enough events; {FEWEST} of each are needed."
    number = row["informative_blocks"]
    blocks = "within 1 block that has both" if number == 1 else f"within {number} blocks that have both"
    gain = f"{row['delta_auc']:+.2f} [{row['delta_auc_low']:+.2f}, {row['delta_auc_high']:+.2f}]"
    if math.isnan(row["delta_auc"]):
        supported = "NA within blocks: no block has heads of both labels"
    elif math.isnan(row["delta_auc_low"]):
        supported = (
            f"gain over local size {blocks} {row['delta_auc']:+.2f}: "
            f"an interval needs at least {FEWEST_BLOCKS} such blocks"
        )
    elif row["delta_auc_low"] > 0:
        supported = f"gain over local size {blocks} {gain}: the label predicts the effect better than local size does"
    else:
        supported = (
            f"gain over local size {blocks} {gain}: the label predicts the effect no better than local size does"
        )
    return (
        f"Label validation by {row['edit']}, {counted}: AUC {row['auc']:.2f} "
        f"[{row['auc_low']:.2f}, {row['auc_high']:.2f}], {supported}."
    ).replace(" [nan, nan]", "")

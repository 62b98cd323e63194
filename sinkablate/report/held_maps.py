"""The attention maps that a diagnosis holds, for the report's example images."""

from math import prod

import numpy as np

from sinkablate.diagnostics.patches import patch_grid
from sinkablate.diagnostics.rules import ADAPTIVE_RULE
from sinkablate.figures.maps import Maps
from sinkablate.report.run import Run


def held_maps(run: Run) -> Maps | None:
    """The maps in the diagnosis of a model: those of its figure `stripes`, of its first image, without the image."""
    if run.columns is None or not len(run.columns) or "texts" in run.summary:  # a text has no patches to arrange
        return None
    heads = run.columns.select("block", "head").unique(maintain_order=True).rows()
    received = run.columns["mean_attention"].cast(float).to_numpy().reshape(len(heads), 1, -1).astype(np.float32)
    kinds = [kind for kind, count in run.tokens.items() for _ in range(count)]
    kinds += [_extra_kind(run)] * (received.shape[2] - len(kinds))
    return Maps(
        heads=tuple(heads),
        rule=ADAPTIVE_RULE,
        names=run.image_names[:1] or ("first image",),
        pictures=(),
        kinds=tuple(kinds),
        received=received,
        grid=_grid(run, kinds.count("patch")),
    )


def _grid(run: Run, patches: int) -> tuple[int, int]:
    """Rows and columns of the patches: those of the token maps, if the diagnosis has any."""
    maps = run.summary.get("token_maps")
    grid = maps.get("grid") if isinstance(maps, dict) else None
    if isinstance(grid, list) and len(grid) == 2 and all(isinstance(n, int) for n in grid) and prod(grid) == patches:
        return grid[0], grid[1]
    return patch_grid(patches)


def _extra_kind(run: Run) -> str:
    """Type of a column in addition to the tokens."""
    if run.blocks is not None and "mass_kv_bias" in run.blocks.columns:
        return "kv_bias" if run.blocks["mass_kv_bias"].drop_nans().len() else "null"
    return "null"

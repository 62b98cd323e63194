"""The attention maps that a diagnosis holds, for the report's panel of example images."""

import numpy as np

from sinkablate.figures.maps import Maps, patch_grid
from sinkablate.report.runs import Run


def held_maps(run: Run) -> Maps | None:
    """The maps that a diagnosis holds: of the heads of its figure `stripes`, on its first image, without the image."""
    if run.columns is None or not len(run.columns):
        return None
    tokens, prefix = int(run.summary.get("num_tokens") or 0), int(run.summary.get("num_prefix_tokens") or 0)
    heads = run.columns.select("block", "head").unique(maintain_order=True).rows()
    received = run.columns["mean_attention"].cast(float).to_numpy().reshape(len(heads), 1, -1).astype(np.float32)
    extra = _extra_kind(run)
    kinds = ["cls"] * (prefix - run.registers) + ["register"] * run.registers + ["patch"] * (tokens - prefix)
    kinds += [extra] * (received.shape[2] - len(kinds))
    return Maps(
        heads=tuple(heads),
        names=run.image_names[:1] or ("first image",),
        pictures=(),
        kinds=tuple(kinds),
        received=received,
        grid=patch_grid(tokens - prefix),
    )


def _extra_kind(run: Run) -> str:
    """Type of a column beyond the tokens."""
    masses = (
        {}
        if run.blocks is None
        else {name: run.blocks[f"mass_{name}"].drop_nans().len() for name in ("null", "kv_bias")}
    )
    return "kv_bias" if masses.get("kv_bias") else "null"

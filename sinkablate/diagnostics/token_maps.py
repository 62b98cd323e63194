"""Token maps: the norm of every patch over the image, and where the outliers among them are."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.cutoff import find_cutoff
from sinkablate.diagnostics.patches import border, corners, low_texture
from sinkablate.diagnostics.records import Array, Records

KEPT = 8
"""Number of images whose maps are kept, from the first."""
Masks = NDArray[np.bool_]


class Stage(NamedTuple):
    """Where norms are measured: at the input or the output of a block."""

    block: int
    stage: str

    @property
    def name(self) -> str:
        """The stage in words."""
        return f"{'before' if self.stage == 'input' else 'after'} block {self.block}"


@dataclass(frozen=True, kw_only=True)
class TokenMaps:
    """The norms of the tokens of one model on one set of images, stage by stage."""

    table: pl.DataFrame
    """One row per stage: the input of the first block, then the output of every block."""
    heads: pl.DataFrame
    """One row per block and head: how often its dominant column is an outlier."""
    stages: tuple[Stage, ...]
    norms: Array = field(repr=False)
    """L2 norm of every patch of the first images, (images, stages, rows, columns)."""
    prefix_norms: Array = field(repr=False)
    """The same of the prefix tokens, (images, stages, tokens)."""
    prefix_types: tuple[str, ...]
    """Type of every prefix token: cls or register."""
    frequency: Array = field(repr=False)
    """Share of all images on which the patch at a position is an outlier, (stages, rows, columns)."""
    mean: Array = field(repr=False)
    """Mean norm over all images of the patch at a position, (stages, rows, columns)."""

    @property
    def cutoffs(self) -> NDArray[np.float64]:
        """The cut-off of every stage, (stages,); NaN where there is none."""
        return self.table["cutoff"].to_numpy()

    @property
    def outliers(self) -> Masks:
        """Which patches of the first images are outliers, (images, stages, rows, columns)."""
        marks: Masks = self.norms > self.cutoffs[None, :, None, None]
        return marks

    @property
    def summary(self) -> dict[str, Any]:
        """The grid, what the mixtures say, and the stage with the largest share of outliers."""
        best = self.table.row(int(np.argmax(self.table["outliers"].to_numpy())), named=True)
        outliers = self.table.filter(pl.col("outliers") > 0)
        return {
            "grid": list(self.norms.shape[2:]),
            "fits": dict(self.table["fit"].value_counts(sort=True).sort("fit").iter_rows()),
            "stages_with_outliers": [Stage(*row).name for row in outliers.select("block", "stage").iter_rows()],
            "most": {name: value for name, value in best.items() if name != "images"} if len(outliers) else None,
        }


def missing_maps(records: Records) -> str:
    """Return why there are no token maps of these records; empty if there are."""
    if records.token_types is not None:
        return "a text has no patches"
    if records.patch_variance is None:
        return "the input does not consist of images of one size whose patches fill a grid"
    return ""


def token_maps(
    records: Records, thresholds: ThresholdConfig, blocks: Sequence[int] | None = None, keep: int = KEPT
) -> TokenMaps:
    """Compute the token maps of records that have them (`missing_maps`).

    Args:
        records: The measurements.
        thresholds: `outlier_norm` replaces the cut-offs from the data.
        blocks: Indices of the measured blocks; None means consecutive from 0.
        keep: Number of images whose maps are kept.
    """
    assert records.patch_variance is not None
    numbers = list(range(records.norms.shape[1])) if blocks is None else list(blocks)
    places = _places(numbers)
    prefix, grid = records.layout.num_prefix, records.patch_variance.shape[1:]
    flat = low_texture(records.patch_variance.reshape(len(records.order), -1))
    regions = {"border": border(*grid).ravel(), "corner": corners(*grid).ravel(), "low_texture": flat}
    cutoffs, rows, frequency, mean = [], [], [], []
    for stage, index in places.items():
        norms = _norms_at(records, stage, index)
        cutoff = find_cutoff(norms[:, prefix:], thresholds.outlier_norm)
        marks = norms[:, prefix:] > cutoff.value
        cutoffs.append(cutoff.value)
        frequency.append(marks.mean(0).reshape(grid))
        mean.append(norms[:, prefix:].mean(0, dtype=np.float64).reshape(grid))
        row: dict[str, Any] = {**stage._asdict(), "images": len(norms), "cutoff": cutoff.value, "fit": cutoff.fit}
        row |= cutoff.columns | _by_type(norms, records) | _outlier_columns(marks, regions)
        border_mean = float(mean[-1][border(*grid)].mean())
        rows.append(row | {"border_norm_ratio": border_mean / float(mean[-1].mean())})
    heads = _heads(records, numbers, dict(zip(places, cutoffs, strict=True)))
    first = np.stack([_norms_at(records, stage, index)[:keep] for stage, index in places.items()], axis=1)
    types = [kind.label for kind in records.kinds]
    return TokenMaps(
        table=pl.DataFrame(rows)
        .join(_of_blocks(heads), on=("block", "stage"), how="left", maintain_order="left")
        .with_columns(pl.col("sink_outliers", "chance_sink_outliers").fill_null(nan)),
        heads=heads.drop("read_block", "stage"),
        stages=tuple(places),
        norms=first[..., prefix:].reshape(*first.shape[:2], *grid),
        prefix_norms=first[..., :prefix],
        prefix_types=tuple(types[code] for code in records.types[0, :prefix]),
        frequency=np.stack(frequency).astype(np.float32),
        mean=np.stack(mean).astype(np.float32),
    )


def _places(blocks: Sequence[int]) -> dict[Stage, int]:
    """Return the stages by depth, each with its index in `Records.input_norms` or `Records.norms`."""
    places: dict[Stage, int] = {}
    inputs = 0
    for index, block in enumerate(blocks):
        if not index or blocks[index - 1] != block - 1:
            places[Stage(block, "input")] = inputs
            inputs += 1
        places[Stage(block, "output")] = index
    return places


def _norms_at(records: Records, stage: Stage, index: int) -> Array:
    return (records.input_norms if stage.stage == "input" else records.norms)[:, index]


def _by_type(norms: Array, records: Records) -> dict[str, float]:
    """Return the mean norm of the tokens of every type; NaN for absent types."""
    types = records.types[0]
    present = {kind.label: norms[:, types == kind] for kind in records.kinds}
    names = ("cls", "register", "patch")
    return {
        f"norm_{name}": float(present[name].mean(dtype=np.float64)) if present[name].size else nan for name in names
    }


def _outlier_columns(marks: Masks, regions: dict[str, Masks]) -> dict[str, float]:
    """Return how many patches are outliers, and the share of them in every region with its chance level.

    Chance is the share that as many patches, drawn at random from the same images, would have in the region.

    Args:
        marks: Which patches are outliers, (n, P).
        regions: Which patches are in a region, (P,) or (n, P).
    """
    per_image, total = marks.sum(1), marks.sum()
    columns = {
        "outliers": float(marks.mean()),
        "outliers_per_image": float(per_image.mean()),
        "images_with_outliers": float((per_image > 0).mean()),
    }
    for name, region in regions.items():
        inside = np.broadcast_to(region, marks.shape)
        columns[name] = float((marks & inside).sum() / total) if total else nan
        columns[f"chance_{name}"] = float(per_image @ inside.mean(1) / total) if total else nan
    return columns


def _heads(records: Records, blocks: Sequence[int], cutoffs: dict[Stage, float]) -> pl.DataFrame:
    """Return one row per block and head, with the stage that the block reads (`read_block`, `stage`).

    NaN if no patch is an outlier there.
    """
    prefix, parts = records.layout.num_prefix, []
    places = _places(blocks)
    columns = np.sum(list(records.candidates.values()), axis=0)
    for index, block in enumerate(blocks):
        stage = next(s for s in (Stage(block, "input"), Stage(block - 1, "output")) if s in places)
        marks = _norms_at(records, stage, places[stage])[:, prefix:] > cutoffs[stage]
        sink = records.heads["sink_idx"][:, index].astype(np.int64) - prefix
        is_patch = (sink >= 0) & (sink < marks.shape[1])
        hit = is_patch & np.take_along_axis(marks, np.where(is_patch, sink, 0), axis=1)
        some = marks.any()
        parts.append(
            pl.DataFrame(
                {
                    "block": np.full(sink.shape[1], block),
                    "head": np.arange(sink.shape[1]),
                    "sink_outliers": hit.mean(0) if some else np.full(sink.shape[1], nan),
                    "chance_sink_outliers": float((marks.sum(1) / columns[:, index]).mean()) if some else nan,
                    "read_block": np.full(sink.shape[1], stage.block),
                    "stage": stage.stage,
                }
            )
        )
    return pl.concat(parts)


def _of_blocks(heads: pl.DataFrame) -> pl.DataFrame:
    """Return the means over the heads that read a stage, by stage."""
    return (
        heads.group_by("read_block", "stage", maintain_order=True)
        .agg(pl.col("sink_outliers", "chance_sink_outliers").mean())
        .rename({"read_block": "block"})
    )

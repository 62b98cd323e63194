"""The norms of the tokens over the image: how they are stored, and their figure."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from sinkablate.figures.sinks import TWO_COLUMNS, Drawn, new_axes, say

Floats = NDArray[np.float32]
ROWS, COLUMNS = 3, 6
"""Largest number of images and of stages in the figure."""
SQUARE = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5)])
"""The outline of a patch around its center."""
OUTLIER_COLOR = "#56B4E9"
"""Color of the frames around outliers, which stands out from all colors of a map."""
LARGEST = float(np.finfo(np.float16).max)
"""Norms above this are stored in single precision."""


@dataclass(frozen=True, kw_only=True)
class StoredMaps:
    """The token norms of the first images, stage by stage, and where the outliers of all images are."""

    names: tuple[str, ...]
    """Names of the images."""
    pictures: NDArray[np.uint8]
    """The images, (images, height, width) or (images, height, width, 3)."""
    blocks: tuple[int, ...]
    """Block of every stage."""
    stages: tuple[str, ...]
    """`input` or `output` of that block."""
    norms: Floats
    """Norm of every patch, (images, stages, rows, columns)."""
    prefix_norms: Floats
    """Norm of every prefix token, (images, stages, tokens)."""
    prefix_types: tuple[str, ...]
    """Type of every prefix token."""
    cutoff: Floats
    """The norm above which a patch is an outlier, (stages,); NaN if there is none."""
    frequency: Floats
    """Share of all images on which the patch at a position is an outlier, (stages, rows, columns)."""
    mean: Floats
    """Mean norm over all images of the patch at a position, (stages, rows, columns)."""

    def name(self, stage: int) -> str:
        """Return a stage in words."""
        return f"{'before' if self.stages[stage] == 'input' else 'after'} block {self.blocks[stage]}"

    def outliers(self, image: int, stage: int) -> NDArray[np.bool_]:
        """Return which patches of an image are outliers, (rows, columns)."""
        marks: NDArray[np.bool_] = self.norms[image, stage] > self.cutoff[stage]
        return marks

    def scale(self, stage: int) -> tuple[float, float]:
        """Return the smallest and the largest norm of a patch, the ends of the color scale of all maps of a stage."""
        low, high = float(self.norms[:, stage].min()), float(self.norms[:, stage].max())
        return low, max(high, low + 1e-6)


def save_token_maps(path: Path, maps: StoredMaps) -> None:
    """Store token maps, norms in half precision unless they are too large for it."""
    small = max(maps.norms.max(), maps.prefix_norms.max(initial=0)) < LARGEST
    content: dict[str, Any] = {
        name: np.asarray(value).astype(np.float16 if small and "norms" in name else np.asarray(value).dtype)
        for name, value in vars(maps).items()
    }
    with path.open("wb") as file:  # an open file, because numpy appends .npz to a name
        np.savez_compressed(file, **content)


def load_token_maps(path: Path) -> StoredMaps:
    """Return the token maps that `save_token_maps` stored.

    Raises:
        OSError, ValueError, KeyError: The file is damaged.
    """
    with np.load(path) as stored:
        texts: dict[str, Any] = {
            name: tuple(stored[name].tolist()) for name in ("names", "blocks", "stages", "prefix_types")
        }
        numbers = {
            name: stored[name].astype(np.float32) for name in ("norms", "prefix_norms", "cutoff", "frequency", "mean")
        }
        maps = StoredMaps(pictures=stored["pictures"], **texts, **numbers)
    images, stages, *grid = maps.norms.shape
    if (
        len(grid) != 2
        or not maps.norms.size
        or images != len(maps.names)
        or images != len(maps.pictures)
        or maps.prefix_norms.shape != (images, stages, len(maps.prefix_types))
        or {len(maps.blocks), len(maps.stages), len(maps.cutoff)} != {stages}
        or maps.frequency.shape != (stages, *grid)
        or maps.mean.shape != (stages, *grid)
    ):
        raise ValueError("its arrays do not fit each other")
    return maps


def chosen_stages(maps: StoredMaps, most: int = COLUMNS) -> list[int]:
    """Return the stages that a figure shows: the first, the last, and evenly between."""
    count = len(maps.stages)
    return sorted({round(index) for index in np.linspace(0, count - 1, min(most, count)).tolist()})


def token_maps(maps: StoredMaps, model: str, types: dict[str, str] | None = None) -> Drawn:
    """Draw the norm of every patch, one row per image and one column per stage, and the mean over all images below.

    The images of a column share a color scale; the map of the mean has its own, whose ends are below it. Outliers are
    framed, and the norms of the prefix tokens are below each map.

    Args:
        maps: The norms.
        model: Name of the model.
        types: Token type -> another name for it.

    Returns:
        The figure, and the norm of every patch that it shows.
    """
    images, stages = range(min(ROWS, len(maps.names))), chosen_stages(maps)
    down, across = len(images) + 1, len(stages) + 1
    tall = maps.norms.shape[2] / maps.norms.shape[3]
    size = (TWO_COLUMNS, 0.9 + down * (0.28 + 5.6 / across * min(tall, 2)))
    framed = any(maps.outliers(image, stage).any() for image in images for stage in stages)
    title = f"Norm of every patch, {model}" + ("\nframed: outliers" if framed else "")
    figure, axes = new_axes(down, across, size, title)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    for row in images:
        axes[row * across].imshow(maps.pictures[row], cmap="gray", vmin=0, vmax=255)
        axes[row * across].set_xlabel(_short(maps.names[row]), fontsize=6)
    axes[len(images) * across].set_axis_off()
    say(axes[len(images) * across], "mean over\nall images")
    for column, stage in enumerate(stages, 1):
        of_stage = [axes[row * across + column] for row in range(down)]
        _draw_stage(figure, of_stage, maps, stage, types or {})
    parts = [[_rows(maps, image, stage) for image in images] + [_mean_rows(maps, stage)] for stage in stages]
    return figure, pl.concat([part for of_stage in parts for part in of_stage])


def _draw_stage(figure: Figure, axes: Sequence[Axes], maps: StoredMaps, stage: int, types: dict[str, str]) -> None:
    """Draw one column: the images on one scale, then the mean over all images on its own."""
    low, high = maps.scale(stage)
    cutoff = maps.cutoff[stage]
    axes[0].set_title(maps.name(stage) + ("" if np.isnan(cutoff) else f"\ncut-off {cutoff:.3g}"), fontsize=7)
    *of_images, of_mean = axes
    for image, axis in enumerate(of_images):
        shown = axis.imshow(maps.norms[image, stage], cmap="magma", vmin=low, vmax=high, interpolation="nearest")
        frames = [SQUARE + np.array(place) for place in np.argwhere(maps.outliers(image, stage))[:, ::-1]]
        axis.add_collection(LineCollection(frames, colors=OUTLIER_COLOR, linewidths=0.8))
        axis.set_xlabel(_prefix(maps, image, stage, types), fontsize=6)
    bar = figure.colorbar(shown, ax=of_images, location="bottom", aspect=12, pad=0.01, shrink=0.9, ticks=MaxNLocator(2))
    bar.ax.tick_params(labelsize=6)
    mean = maps.mean[stage]
    of_mean.imshow(mean, cmap="magma", interpolation="nearest")
    often = "" if np.isnan(cutoff) else f"\n{maps.frequency[stage].sum():.2g} outliers per image"
    of_mean.set_xlabel(f"{mean.min():.3g} to {mean.max():.3g}{often}", fontsize=6)


def _prefix(maps: StoredMaps, image: int, stage: int, types: dict[str, str]) -> str:
    """Return the mean norm of the prefix tokens of every type, one per line: a narrow map has no room for two."""
    norms = maps.prefix_norms[image, stage]
    kinds = np.array(maps.prefix_types)
    return "\n".join(
        f"{types.get(kind, kind)} {norms[kinds == kind].mean():.3g}" for kind in dict.fromkeys(kinds.tolist())
    )


def _rows(maps: StoredMaps, image: int, stage: int) -> pl.DataFrame:
    """Return what one map shows, one row per patch; `outlier` is 0 or 1."""
    outliers = maps.outliers(image, stage).astype(np.float32)
    return _table(maps, maps.names[image], stage, maps.norms[image, stage], outliers)


def _mean_rows(maps: StoredMaps, stage: int) -> pl.DataFrame:
    """Return the mean over all images; `outlier` is the share of images on which the patch is one."""
    return _table(maps, "mean over all images", stage, maps.mean[stage], maps.frequency[stage])


def _table(maps: StoredMaps, image: str, stage: int, norms: Floats, outliers: Floats) -> pl.DataFrame:
    row, column = np.indices(norms.shape).reshape(2, -1)
    place = {"image": image, "block": maps.blocks[stage], "stage": maps.stages[stage], "row": row, "column": column}
    return pl.DataFrame(place | {"norm": norms.ravel(), "outlier": outliers.ravel()})


def _short(name: str, most: int = 22) -> str:
    return name if len(name) <= most else f"…{name[1 - most :]}"

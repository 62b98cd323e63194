"""The norms of the tokens over the image: the figure of a report, and the data of its page."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sinkablate.figures.maps import data_url, picture_png
from sinkablate.figures.sinks import Drawn
from sinkablate.figures.token_maps import StoredMaps, token_maps
from sinkablate.report.rounding import rounded
from sinkablate.report.run import Run, kind_names

IMAGES = 4
"""Largest number of images on the page."""


def token_norms(runs: Sequence[Run]) -> Drawn | None:
    """Draw the token maps of the first run that has them; the title names it."""
    first = next((run for run in runs if run.token_maps is not None), None)
    if first is None or first.token_maps is None:
        return None
    return token_maps(first.token_maps, first.name, kind_names([first]))


def page_token_maps(maps: StoredMaps, pictures: dict[str, int]) -> dict[str, Any]:
    """Return the norms of the first images as plain values.

    Args:
        maps: What the diagnosis stored.
        pictures: Maps the data URL of each example image of all runs so far to its index; these are added.
    """
    count = min(IMAGES, len(maps.names))
    urls = [data_url(picture_png(picture.astype(np.float32) / 255)) for picture in maps.pictures[:count]]
    return {
        "names": list(maps.names[:count]),
        "pictures": [pictures.setdefault(url, len(pictures)) for url in urls],
        "grid": list(maps.norms.shape[2:]),
        "stages": [_stage(maps, stage, count) for stage in range(len(maps.stages))],
    }


def _stage(maps: StoredMaps, stage: int, count: int) -> dict[str, Any]:
    kinds = np.array(maps.prefix_types)
    return {
        "block": maps.blocks[stage],
        "stage": maps.stages[stage],
        "name": maps.name(stage),
        "cutoff": rounded([maps.cutoff[stage]])[0],
        "range": rounded(maps.scale(stage)),
        "norms": [rounded(maps.norms[image, stage].ravel()) for image in range(count)],
        "prefix": {
            kind: rounded(maps.prefix_norms[:count, stage, kinds == kind].mean(-1))
            for kind in dict.fromkeys(maps.prefix_types)
        },
        "frequency": rounded(maps.frequency[stage].ravel(), 3),
    }

"""The token maps of a diagnosis: which images they show, and the files they are written to."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sinkablate.diagnose.maps import picture_of
from sinkablate.diagnose.measure import Source
from sinkablate.diagnose.model import LoadedModel
from sinkablate.diagnostics.token_maps import TokenMaps
from sinkablate.figures.maps import LONGEST_SIDE
from sinkablate.figures.sinks import save
from sinkablate.figures.token_maps import StoredMaps, save_token_maps, token_maps
from sinkablate.files.writing import write_atomically
from sinkablate.run.resumable import RESUMES


def write_token_maps(
    out: Path, maps: TokenMaps, loaded: LoadedModel, source: Source, names: Sequence[str], numbers: Sequence[int]
) -> dict[str, Any]:
    """Write the tables, the maps of the first images and their figure.

    Args:
        out: Directory of the diagnosis.
        maps: What was measured.
        loaded: The measured model.
        source: The images.
        names: Names of the measured images.
        numbers: Their numbers in `source`.

    Returns:
        The summary of the maps.
    """
    kept = len(maps.norms)
    stored = StoredMaps(
        names=tuple(map(str, names[:kept])),
        pictures=_pictures(loaded, source, numbers[:kept]),
        blocks=tuple(stage.block for stage in maps.stages),
        stages=tuple(stage.stage for stage in maps.stages),
        norms=maps.norms,
        prefix_norms=maps.prefix_norms,
        prefix_types=maps.prefix_types,
        cutoff=maps.cutoffs.astype(np.float32),
        frequency=maps.frequency,
        mean=maps.mean,
    )
    write_atomically(out / "token_maps.parquet", maps.table.write_parquet, RESUMES)
    write_atomically(out / "token_map_heads.parquet", maps.heads.write_parquet, RESUMES)
    write_atomically(out / "token_maps.npz", lambda path: save_token_maps(path, stored), RESUMES)
    save(token_maps(stored, loaded.title), out / "figures" / "token_maps")
    return maps.summary


def _pictures(loaded: LoadedModel, source: Source, numbers: Sequence[int]) -> NDArray[np.uint8]:
    """Return images as small pictures, (images, height, width) or (images, height, width, 3)."""
    chosen, pictures = set(numbers), []
    for number, image in zip(count(numbers[0]), source.start(numbers[0]), strict=False):
        if number in chosen:
            tensor = image.load()
            picture = picture_of(loaded, tensor)
            pixels = _stretched(tensor.float().mean(0).numpy()) if picture is None else picture
            small = Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))
            small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
            pictures.append(np.asarray(small))
        if number >= numbers[-1]:
            break
    return np.stack(pictures)


def _stretched(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale pixels to [0, 1], for a model whose normalization is unknown."""
    low, high = pixels.min(), pixels.max()
    scaled: NDArray[np.float32] = (pixels - low) / max(high - low, 1e-6)
    return scaled

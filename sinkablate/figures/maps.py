"""Attention maps of a few heads on example images, as arrays and as small PNG files."""

import base64
import io
from dataclasses import dataclass

import numpy as np
import polars as pl
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]
SHOWN = 4
"""Number of heads that a diagnosis draws maps of."""
LONGEST_SIDE = 128
"""Longest side of an example image in pixels; larger ones are scaled down."""


def busiest(heads: pl.DataFrame, rule: str, count: int = SHOWN) -> list[tuple[int, int]]:
    """Return (block, head) of the `count` heads with the most events of a rule, then with the most mass on the sink."""
    order = heads.sort([f"{rule}_frequency", "median_mass", "block", "head"], descending=[True, True, False, False])
    return sorted(order.select("block", "head").head(count).rows())


@dataclass(frozen=True, kw_only=True)
class Maps:
    """The attention that every column receives from a few heads on a few images."""

    heads: tuple[tuple[int, int], ...]
    """(block, head)."""
    rule: str
    """The rule by whose events the heads were chosen."""
    names: tuple[str, ...]
    """Names of the images."""
    pictures: tuple[Floats, ...]
    """The images, (H, W) or (H, W, 3) in [0, 1]; empty for sequences."""
    kinds: tuple[str, ...]
    """Token type of each of the M columns."""
    received: Floats
    """Mean of |A| over the queries, (heads, images, M)."""
    grid: tuple[int, int]
    """Rows and columns of the patches."""

    def patches(self, head: int, image: int) -> Floats:
        """Return what the patches receive, arranged as in the image."""
        chosen = np.array([kind == "patch" for kind in self.kinds])
        return self.received[head, image][chosen].reshape(self.grid)

    def shares(self, head: int, image: int) -> dict[str, float]:
        """Return what each token type receives, summed over its columns."""
        kinds, row = np.array(self.kinds), self.received[head, image]
        return {kind: float(row[kinds == kind].sum()) for kind in dict.fromkeys(self.kinds)}

    def strongest(self, head: int, image: int) -> tuple[int, str, float]:
        """Return the number and type of the column that receives most, and how much it receives."""
        column = int(self.received[head, image].argmax())
        return column, self.kinds[column], float(self.received[head, image, column])


def map_png(patches: Floats) -> bytes:
    """Return a patch map as a PNG with one pixel per patch, black to yellow from zero to the largest value."""
    scaled = patches / max(float(patches.max()), 1e-12)
    return _png(Image.fromarray((colormaps["magma"](scaled)[..., :3] * 255).astype(np.uint8)))


def picture_png(picture: Floats) -> bytes:
    """Return an image as a small PNG."""
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return _png(image)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def data_url(png: bytes) -> str:
    """Return a PNG as a URL that contains it."""
    return "data:image/png;base64," + base64.b64encode(png).decode()

"""Reads IDX files, the format of MNIST and Fashion-MNIST."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sinkablate.errors import UserError


def read_labeled_idx(folder: Path, prefix: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read the images (n, H, W) and labels (n,) of one split.

    Args:
        folder: Directory of the files.
        prefix: Beginning of their names: `train` or `t10k`.

    Raises:
        UserError: A file is missing or damaged, or there are no images, or not as many labels as images.
    """
    images = _read_idx(folder, f"{prefix}-images-idx3-ubyte", dimensions=3)
    labels = _read_idx(folder, f"{prefix}-labels-idx1-ubyte", dimensions=1)
    if not len(images):
        raise UserError(f"{folder}: {prefix} contains no images")
    if len(images) != len(labels):
        raise UserError(f"{folder}: {prefix} has {len(images)} images and {len(labels)} labels")
    return images, labels


def _read_idx(folder: Path, name: str, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file, plain or gzipped: bytes 0, 0, type (8: uint8), number of dimensions, then sizes and values."""
    path = next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)
    if path is None:
        raise UserError(f"{folder}: {name}(.gz) is missing")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    start = 4 + 4 * dimensions
    shape = np.frombuffer(data[4:start], ">u4").tolist() if len(data) >= start else []
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) - start != math.prod(shape):
        raise UserError(f"{path}: not a complete IDX file of bytes with {dimensions} dimensions")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)

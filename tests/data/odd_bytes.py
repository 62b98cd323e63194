"""Image files of odd kinds, as bytes, and the pixels that a reader should return for them."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
RGB: Pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
GRAY: Pixels = RGB[..., 0].copy()
DEEP: NDArray[np.uint16] = np.random.default_rng(1).integers(0, 65_536, (4, 6), dtype=np.uint16)
FLAT: Pixels = np.broadcast_to(np.array([200, 120, 40], np.uint8), (16, 16, 3)).copy()
BROAD: Pixels = np.concatenate([FLAT // 4, FLAT], axis=0)
ORIENTED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
"""How an image is displayed for each EXIF orientation: the definition, independent of Pillow's methods."""


def saved(image: Any, form: str, **options: Any) -> bytes:
    """The bytes of an image file of an array or an image."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, form, **options)
    return buffer.getvalue()


def oriented(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def gray(values: NDArray[Any]) -> Pixels:
    """Three equal 8-bit channels from values in [0, 1]."""
    channel = np.round(values * 255).astype(np.uint8)
    return np.stack([channel] * 3, axis=-1)


def png(kind: int, depth: int, width: int, height: int, rows: bytes) -> bytes:
    """A PNG written by hand, of a kind that Pillow cannot save."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def palette(transparency: bytes | int | None = None) -> tuple[bytes, Pixels]:
    image = Image.fromarray(RGB).quantize(8)
    options = {} if transparency is None else {"transparency": transparency}
    colors = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    return saved(image, "PNG", **options), colors[np.asarray(image)]


def cmyk() -> tuple[bytes, Pixels]:
    ink = np.dstack([RGB, GRAY // 2])
    black = 255.0 - ink[..., 3:]
    return saved(Image.frombytes("CMYK", (6, 4), ink.tobytes()), "TIFF"), np.round(
        black * (255.0 - ink[..., :3]) / 255
    ).astype(np.uint8)


def flat_cmyk() -> tuple[bytes, Pixels]:
    ink = np.dstack([FLAT, FLAT[..., 0] // 2])
    pixels = (255.0 - ink[..., 3:]) * (255.0 - ink[..., :3]) / 255
    image = Image.frombytes("CMYK", (16, 16), ink.tobytes())
    return saved(image, "JPEG", quality=95), np.round(pixels).astype(np.uint8)


def deep_rgb() -> tuple[bytes, Pixels]:
    values = np.random.default_rng(2).integers(0, 65_536, (4, 6, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(2, 16, 6, 4, rows), (values >> 8).astype(np.uint8)


def deep_channels(kind: int, channels: int) -> tuple[bytes, Pixels]:
    """A PNG with 16-bit gray and transparency (kind 4) or color and transparency (kind 6)."""
    values = np.random.default_rng(5).integers(0, 65_536, (4, 6, channels), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    shown = (values[..., :3] if channels == 4 else values[..., [0, 0, 0]]) >> 8
    return png(kind, 16, 6, 4, rows), shown.astype(np.uint8)


def white_is_zero() -> tuple[bytes, Pixels]:
    """A TIFF of 16-bit gray whose tag says that 0 is white."""
    return saved(DEEP, "TIFF", tiffinfo={0x0106: 0}), gray(1 - DEEP / 65_535)


def wide_head(form: str, offset: int, layout: str, mark: bytes = b"") -> bytes:
    """A small file whose header promises 60,000 x 60,000 pixels, the numbers at an offset from a mark."""
    data = bytearray(saved(FLAT, form))
    start = data.index(mark) + offset
    data[start : start + struct.calcsize(layout)] = struct.pack(layout, 60_000, 60_000)
    return bytes(data)


def wide_tiff() -> bytes:
    data = saved(RGB, "TIFF")
    for tag, size in ((256, 6), (257, 4)):
        data = data.replace(struct.pack("<HHII", tag, 4, 1, size), struct.pack("<HHII", tag, 4, 1, 60_000))
    return data


def truncated(data: bytes, places: int = 10) -> list[bytes]:
    """A file that ends early, at a number of places."""
    return [data[: len(data) * (2 * place + 1) // (2 * places + 1)] for place in range(places)]

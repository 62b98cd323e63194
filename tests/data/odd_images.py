"""Tables of image files of every kind: what is read from each, or why it is not read."""

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


def deep_rgb() -> tuple[bytes, Pixels]:
    values = np.random.default_rng(2).integers(0, 65_536, (4, 6, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(2, 16, 6, 4, rows), (values >> 8).astype(np.uint8)


LOSSY = {"upper.JPG", "flat.jpeg", "exif_6.jpg", "flat.avif", "cmyk.tif"}
"""Files that are compared within a few levels."""
BROAD: Pixels = np.concatenate([FLAT[:, :, :] // 4, FLAT], axis=0)
READ: dict[str, tuple[bytes, Pixels]] = {
    "gray.png": (saved(GRAY, "PNG"), gray(GRAY / 255)),
    "rgb.png": (saved(RGB, "PNG"), RGB),
    "bits.png": (saved(Image.fromarray(GRAY > 99), "PNG"), gray(GRAY > 99)),
    "gray_16.png": (saved(DEEP, "PNG"), gray(DEEP / 65_535)),
    "gray_16.tif": (saved(DEEP, "TIFF"), gray(DEEP / 65_535)),
    "gray_16_big_endian.tif": (
        saved(Image.frombytes("I;16B", (6, 4), DEEP.astype(">u2").tobytes()), "TIFF"),
        gray(DEEP / 65_535),
    ),
    "gray_16.pgm": (b"P5 6 4 65535\n" + DEEP.astype(">u2").tobytes(), gray(DEEP / 65_535)),
    "gray_12.pgm": (b"P5 6 4 4095\n" + (DEEP >> 4).astype(">u2").tobytes(), gray((DEEP >> 4) / 4095)),
    "rgb_16.png": deep_rgb(),
    "palette.png": palette(),
    "palette_alpha.png": palette(bytes([0, 90, 255])),
    "palette_color_key.png": palette(3),
    "gray_alpha.png": (saved(np.dstack([GRAY, GRAY[::-1]]), "PNG"), gray(GRAY / 255)),
    "rgba.png": (saved(np.dstack([RGB, GRAY]), "PNG"), RGB),
    "cmyk.tif": cmyk(),
    "flat.jpeg": (saved(FLAT, "JPEG", quality=95), FLAT),
    "upper.JPG": (saved(FLAT, "JPEG", quality=95), FLAT),
    "upper.PnG": (saved(RGB, "PNG"), RGB),
    "still.gif": (saved(Image.fromarray(GRAY), "GIF"), gray(GRAY / 255)),
    "moving.gif": (
        saved(Image.fromarray(GRAY), "GIF", save_all=True, append_images=[Image.fromarray(GRAY[::-1])]),
        gray(GRAY / 255),
    ),
    "lossless.webp": (saved(RGB, "WEBP", lossless=True), RGB),
    "moving.webp": (
        saved(Image.fromarray(RGB), "WEBP", lossless=True, save_all=True, append_images=[Image.fromarray(RGB[::-1])]),
        RGB,
    ),
    "flat.avif": (saved(FLAT, "AVIF", quality=95), FLAT),
    "plain.bmp": (saved(RGB, "BMP"), RGB),
    "plain.tif": (saved(RGB, "TIFF"), RGB),
    "packed.tiff": (saved(RGB, "TIFF", compression="tiff_lzw"), RGB),
    "plain.ppm": (saved(RGB, "PPM"), RGB),
    "plain.pbm": (saved(Image.fromarray(GRAY > 99), "PPM"), gray(GRAY > 99)),
    "lossless.jp2": (saved(RGB, "JPEG2000", irreversible=False), RGB),
    "a_png_named.jpg": (saved(RGB, "PNG"), RGB),
    "a_bmp_named.gif": (saved(RGB, "BMP"), RGB),
    "two.dots.png": (saved(RGB, "PNG"), RGB),
    "one_pixel.png": (saved(RGB[:1, :1], "PNG"), RGB[:1, :1]),
    "broken_exif.png": (saved(RGB, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"), RGB),
    "exif_6.jpg": (saved(BROAD, "JPEG", quality=95, exif=oriented(6)), ORIENTED[6](BROAD)),
    "exif_6.webp": (saved(RGB, "WEBP", lossless=True, exif=oriented(6)), ORIENTED[6](RGB)),
    "exif_8.tif": (saved(RGB, "TIFF", tiffinfo={0x0112: 8}), ORIENTED[8](RGB)),
    "exif_9.png": (saved(RGB, "PNG", exif=oriented(9)), RGB),
    "exif_6_gray_16.png": (saved(DEEP, "PNG", exif=oriented(6)), ORIENTED[6](gray(DEEP / 65_535))),
    **{f"exif_{value}.png": (saved(RGB, "PNG", exif=oriented(value)), turn(RGB)) for value, turn in ORIENTED.items()},
}
SKIPPED: dict[str, tuple[bytes | None, str]] = {
    "floats.tif": (saved(GRAY.astype(np.float32), "TIFF"), "unknown range of pixels"),
    "integers_32.tif": (saved(GRAY.astype(np.int32), "TIFF"), "unknown range of pixels"),
    "cut.png": (saved(RGB, "PNG")[:70], "cannot be decoded"),
    "cut.jpg": (saved(FLAT, "JPEG")[:-40], "cannot be decoded"),
    "cut.gif": (saved(GRAY, "GIF")[:20], "cannot be decoded"),
    "head_only.png": (saved(RGB, "PNG")[:8], "cannot be decoded"),
    "garbage.png": (bytes(range(256)), "cannot be decoded"),
    "page.jpg": (b"<!doctype html><title>404</title>", "cannot be decoded"),
    "postscript.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "cannot be decoded"),
    "vector.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot be decoded"),
    "empty.png": (b"", "empty file"),
    "huge.png": (png(0, 8, 20_000, 9_000, b""), "too many pixels"),
    "large.png": (png(0, 8, 10_000, 9_000, b""), "too many pixels"),
    "link_to_nowhere.png": (None, "unreadable file"),
}
IGNORED = {
    "photo.heic": "not an image that can be read (.heic)",
    "LICENSE": "not an image (no suffix)",
    "notes.txt": "not an image that can be read (.txt)",
    "raw.NEF": "not an image that can be read (.nef)",
}
HIDDEN = (
    "._rgb.png",
    ".hidden.png",
    "Thumbs.db",
    ".DS_Store",
    "desktop.ini",
    ".ipynb_checkpoints/rgb-checkpoint.png",
    "__MACOSX/rgb.png",
)

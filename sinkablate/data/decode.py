"""From the bytes of an image file to 8-bit pixels: one rule for training, evaluation and diagnoses."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
from PIL import Image

from sinkablate.config import ImageConfig
from sinkablate.data.errors import DataError
from sinkablate.files import git_lfs

MAX_PIXELS = 89_478_485
"""Pillow's own limit; a larger image is more likely an attack, or a scan that is not meant for training."""

_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "TIFF", "BMP", "DIB", "PPM", "AVIF", "JPEG2000")
"""The formats of `IMAGE_SUFFIXES`. Pillow reads others too, such as PostScript, for which it starts a program."""

_NATIVE_MODES = {1: ("L", "1"), 3: ("RGB", "P")}
"""PIL modes that already have this number of channels (a palette encodes colors)."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that undoes each value of the EXIF orientation."""

_ORIENTATION = 0x0112
_PHOTOMETRIC = 0x0106
"""Tag of a TIFF file that says whether 0 is black or white."""

# `decode_image` itself refuses images that are too large, in one line that names the file, and damaged EXIF data
# do not affect the pixels
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", "Corrupt EXIF data")


def decode_image(data: bytes, where: str) -> Image.Image:
    """Decode an image file, rotated upright according to its EXIF orientation; 16-bit gray is scaled to 8 bits.

    The first frame of an animation is used.

    Args:
        data: The content of the file.
        where: Names the file in messages.

    Raises:
        DataError: The file is empty, not an image, or truncated, has more than `MAX_PIXELS` pixels, or its pixels have
            no known range (32-bit integers, floating point).
    """
    if not data:
        raise DataError(f"{where}: the file is empty", "empty file")
    if data.startswith(git_lfs.POINTER):
        raise DataError(f"{where}: a Git LFS pointer instead of the image; run git lfs pull", "cannot be decoded")
    with _data_errors(where):
        image: Image.Image = Image.open(io.BytesIO(data), formats=_formats())
    return upright_image(image, where)


def upright_image(image: Image.Image, where: str) -> Image.Image:
    """Load an image that Pillow opened, by the rules of `decode_image`.

    Args:
        image: The image.
        where: Names it in messages.

    Raises:
        DataError: As for `decode_image`.
    """
    with _data_errors(where):
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError(f"{image.width * image.height} pixels")
        image.load()
    return _upright(_eight_bits(image, where))


@contextmanager
def _data_errors(where: str) -> Iterator[None]:
    """Turn what Pillow raises into a `DataError`."""
    try:
        yield
    except Image.DecompressionBombError as error:
        count = re.search(r"\d+", str(error))  # Pillow gives the number in this text only
        pixels = f"{int(count[0]):,} pixels" if count else "too many pixels"
        raise DataError(f"{where}: the image has {pixels}; the limit is {MAX_PIXELS:,}", "too many pixels") from None
    except Exception as error:  # PIL's decoders raise many types, including SyntaxError and struct.error
        reason = re.sub(r" ?<_io.BytesIO object at 0x\w+>", "", str(error))
        raise DataError(f"{where}: the image cannot be decoded ({reason})", "cannot be decoded") from None


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """The formats among `_FORMATS` that this build of Pillow can read."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _eight_bits(image: Image.Image, where: str) -> Image.Image:
    """Scale gray values of more than 8 bits by the range of their type; Pillow would clip them at 255."""
    # Pillow reads PGM files of more than 8 bits as 32-bit integers scaled to 16 bits
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG")):
        values = np.asarray(image).astype(np.uint32)
        if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:  # 0 is white; Pillow inverts 8-bit images only
            values = 65_535 - values
        scaled = Image.fromarray(((values * 255 + 32_767) // 65_535).astype(np.uint8))
        scaled.info = image.info
        return scaled
    if image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise DataError(
            f"{where}: the pixels are {kind} of unknown range; convert the file to 8 or 16 bits",
            "unknown range of pixels",
        )
    return image


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # damaged EXIF data; the pixels are intact
        return image
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def with_channels(image: Image.Image, config: ImageConfig, where: str) -> Image.Image:
    """Return an image with the number of channels that a model expects, converted if necessary and allowed.

    Transparency is dropped, as torchvision and timm do.

    Raises:
        DataError: The image has the wrong number of channels and `data.image.convert` is off, or it cannot be
            converted.
    """
    native, *others = _NATIVE_MODES[config.in_chans]
    if image.mode == native:
        return image
    if image.mode not in others and not config.convert:
        raise DataError(
            f"{where}: the image has {len(image.getbands())} channels (mode {image.mode}), but "
            f"data.image.in_chans={config.in_chans}; set data.image.convert=true to convert images",
            "number of channels",
        )
    if "transparency" in image.info:  # otherwise Pillow warns that it is dropped
        image = image.copy()
        del image.info["transparency"]
    try:
        return image.convert(native)
    except ValueError as error:
        raise DataError(f"{where}: the colors cannot be converted ({error})", "number of channels") from None

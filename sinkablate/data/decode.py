"""From the bytes of an image file to 8-bit pixels: one rule for training, evaluation and diagnoses."""

import io
import re
import warnings
from functools import lru_cache

import numpy as np
from PIL import Image

from sinkablate.config import ImageConfig
from sinkablate.data.layout import DataError

MAX_PIXELS = 89_478_485
"""Pillow's own limit: what is larger is more likely an attack, or a scan that nobody meant to train on."""

_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "TIFF", "BMP", "DIB", "PPM", "AVIF", "JPEG2000")
"""What `IMAGE_SUFFIXES` name. Pillow reads more, such as PostScript, for which it starts another program."""

_NATIVE_MODES = {1: ("L", "1"), 3: ("RGB", "P")}
"""PIL modes that already have this number of channels (a palette stands for colors)."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each value of the EXIF orientation."""

_ORIENTATION = 0x0112

# `decode_image` refuses such images itself, in one line that names the file, and reads the pixels of the others
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", "Corrupt EXIF data")


def decode_image(data: bytes, where: str) -> Image.Image:
    """Decode an image file, turned upright as its EXIF orientation says; 16-bit gray is scaled to 8 bits.

    Of an animation, the first frame is taken.

    Args:
        data: The content of the file.
        where: The file's name, for messages.

    Raises:
        DataError: The file is empty, is not an image, is cut short, has more than `MAX_PIXELS` pixels, or its pixels
            are numbers without a known range (32-bit integers, floating point).
    """
    if not data:
        raise DataError(f"{where}: the file is empty", "empty file")
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=_formats())
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
        image.load()
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{where}: the image is too large ({error}; at most {MAX_PIXELS:,} pixels are read)", "too many pixels"
        ) from None
    except Exception as error:  # PIL's decoders raise many kinds, SyntaxError and struct.error among them
        reason = re.sub(r" ?<_io.BytesIO object at 0x\w+>", "", str(error))
        raise DataError(f"{where}: the image cannot be decoded ({reason})", "cannot be decoded") from None
    return _upright(_eight_bits(image, where))


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """The formats that this build of Pillow can read."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _eight_bits(image: Image.Image, where: str) -> Image.Image:
    """Scale gray values of more than 8 bits by the range of their type; Pillow itself would clip them at 255."""
    # Pillow reads PGM files of more than 8 bits as 32-bit integers scaled to 16 bits
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG")):
        values = np.asarray(image).astype(np.uint32)
        scaled = Image.fromarray(((values * 255 + 32_767) // 65_535).astype(np.uint8))
        scaled.info = image.info
        return scaled
    if image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise DataError(
            f"{where}: the pixels are {kind}, whose range is not known; convert the file to 8 or 16 bits",
            "unknown range of pixels",
        )
    return image


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # damaged EXIF data say nothing; the pixels are whole
        return image
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def with_channels(image: Image.Image, config: ImageConfig, where: str) -> Image.Image:
    """See that a decoded image has the channels that a model takes, or convert it.

    Transparency is dropped, as torchvision and timm do.

    Raises:
        DataError: It has another number of channels and `data.image.convert` is off, or its colors cannot be converted.
    """
    native, *others = _NATIVE_MODES[config.in_chans]
    if image.mode == native:
        return image
    if image.mode not in others and not config.convert:
        raise DataError(
            f"{where}: the image has {len(image.getbands())} channels (mode {image.mode}), "
            f"data.image.in_chans is {config.in_chans}; data.image.convert=true converts",
            "number of channels",
        )
    image.info.pop("transparency", None)  # Pillow warns where it would be dropped
    try:
        return image.convert(native)
    except ValueError as error:
        raise DataError(f"{where}: the colors cannot be converted ({error})", "number of channels") from None

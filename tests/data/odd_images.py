"""Tables of image files of every kind: what is read from each, or why it is not read."""

import numpy as np
from odd_bytes import (
    BROAD,
    DEEP,
    FLAT,
    GRAY,
    ORIENTED,
    RGB,
    Pixels,
    cmyk,
    deep_channels,
    deep_rgb,
    flat_cmyk,
    gray,
    oriented,
    palette,
    png,
    saved,
    truncated,
    white_is_zero,
    wide_head,
    wide_tiff,
)
from PIL import Image

LOSSY = {"upper.JPG", "flat.jpeg", "flat.avif", "moving.avif", "several.mpo.jpg", "cmyk.tif", "cmyk.jpg", "ycbcr.tif"}
"""Files that are compared within a few levels."""
BLURRED = {f"exif_{value}.{ending}" for value in ORIENTED for ending in ("jpg", "avif")}
"""Files that are compared within a few levels outside the edge between their two colors."""
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
    **{
        f"exif_{value}.jpg": (saved(BROAD, "JPEG", quality=95, exif=oriented(value)), turn(BROAD))
        for value, turn in ORIENTED.items()
    },
    "exif_6.avif": (saved(BROAD, "AVIF", quality=95, exif=oriented(6)), ORIENTED[6](BROAD)),
    "exif_0.png": (saved(RGB, "PNG", exif=oriented(0)), RGB),
    "exif_6_gray_16.tif": (saved(DEEP, "TIFF", tiffinfo={0x0112: 6}), ORIENTED[6](gray(DEEP / 65_535))),
    "gray_16_white_is_zero.tif": white_is_zero(),
    "gray_16.jp2": (saved(DEEP, "JPEG2000", irreversible=False), gray(DEEP / 65_535)),
    "gray_alpha_16.png": deep_channels(4, 2),
    "rgba_16.png": deep_channels(6, 4),
    "gray_4.png": (png(0, 4, 6, 1, b"\0\x0f\x5a\xff"), gray(np.array([[0, 15, 5, 10, 15, 15]]) / 15)),
    "gray_2.png": (png(0, 2, 4, 1, b"\0\x1b"), gray(np.array([[0, 1, 2, 3]]) / 3)),
    "gray_alpha.tif": (saved(np.dstack([GRAY, GRAY]), "TIFF"), gray(GRAY / 255)),
    "rgba.tif": (saved(np.dstack([RGB, GRAY]), "TIFF"), RGB),
    "rgba.webp": (saved(np.dstack([RGB, np.full_like(GRAY, 200)]), "WEBP", lossless=True), RGB),
    "bits_fax.tif": (saved(Image.fromarray(GRAY > 99), "TIFF", compression="group4"), gray(GRAY > 99)),
    "bits.bmp": (saved(Image.fromarray(GRAY > 99), "BMP"), gray(GRAY > 99)),
    "text.pgm": (b"P2 3 1 9\n0 4 9\n", gray(np.array([[0, 4, 9]]) / 9)),
    "cmyk.jpg": flat_cmyk(),
    "ycbcr.tif": (saved(Image.fromarray(FLAT).convert("YCbCr"), "TIFF"), FLAT),
    "moving.png": (saved(Image.fromarray(RGB), "PNG", save_all=True, append_images=[Image.fromarray(RGB[::-1])]), RGB),
    "moving.avif": (
        saved(Image.fromarray(FLAT), "AVIF", quality=95, save_all=True, append_images=[Image.fromarray(FLAT // 2)]),
        FLAT,
    ),
    "pages.tif": (saved(Image.fromarray(RGB), "TIFF", save_all=True, append_images=[Image.fromarray(RGB[::-1])]), RGB),
    "several.mpo.jpg": (
        saved(Image.fromarray(FLAT), "MPO", quality=95, save_all=True, append_images=[Image.fromarray(FLAT // 2)]),
        FLAT,
    ),
    "more_at_the_end.png": (saved(RGB, "PNG") + b"more" * 99, RGB),
    "broken_icc.png": (saved(RGB, "PNG", icc_profile=b"nonsense"), RGB),
    "exif_6.webp": (saved(RGB, "WEBP", lossless=True, exif=oriented(6)), ORIENTED[6](RGB)),
    "exif_8.tif": (saved(RGB, "TIFF", tiffinfo={0x0112: 8}), ORIENTED[8](RGB)),
    "exif_9.png": (saved(RGB, "PNG", exif=oriented(9)), RGB),
    "exif_6_gray_16.png": (saved(DEEP, "PNG", exif=oriented(6)), ORIENTED[6](gray(DEEP / 65_535))),
    **{f"exif_{value}.png": (saved(RGB, "PNG", exif=oriented(value)), turn(RGB)) for value, turn in ORIENTED.items()},
}
NOISE = np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)
SMOOTH = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8)[:, None, None], (64, 64, 3)).copy()
CUT = {"gif": "GIF", "webp": "WEBP", "tif": "TIFF", "bmp": "BMP", "avif": "AVIF", "jp2": "JPEG2000", "ppm": "PPM"}
"""Formats of further files that end in the middle."""
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
    "photo_heic.jpg": (b"\0\0\0\x18ftypheic" + bytes(40), "cannot be decoded"),
    "document.png": (b"%PDF-1.4", "cannot be decoded"),
    "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "cannot be decoded"),
    "wrong_checksum.png": (saved(RGB, "PNG")[:-20] + b"xxxx" + saved(RGB, "PNG")[-16:], "cannot be decoded"),
    "no_width.png": (png(0, 8, 0, 5, b""), "cannot be decoded"),
    **{f"cut_{place}.png": (data, "cannot be decoded") for place, data in enumerate(truncated(saved(NOISE, "PNG")))},
    **{f"cut_{place}.jpg": (data, "cannot be decoded") for place, data in enumerate(truncated(saved(SMOOTH, "JPEG")))},
    **{
        f"cut_half.{ending}": (saved(SMOOTH, form)[: len(saved(SMOOTH, form)) // 2], "cannot be decoded")
        for ending, form in CUT.items()
    },
    "huge.jpg": (wide_head("JPEG", 5, ">HH", b"\xff\xc0"), "too many pixels"),
    "huge.gif": (wide_head("GIF", 6, "<HH"), "too many pixels"),
    "huge.bmp": (wide_head("BMP", 18, "<ii"), "too many pixels"),
    "huge.ppm": (b"P6 60000 60000 255\n", "too many pixels"),
    "huge.tif": (wide_tiff(), "too many pixels"),
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

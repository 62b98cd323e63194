"""The size of images: one number for squares, two for other rectangles."""

from typing import Any

from sinkablate.config.checks import require

ImageSize = int | tuple[int, int]
"""Side of square images in pixels, or [height, width]."""
LARGEST = 16_384
"""Largest height and width in pixels."""


def height_and_width(size: ImageSize) -> tuple[int, int]:
    """Return the height and the width of images of a size in pixels."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def image_size(height: int, width: int) -> ImageSize:
    """Return the shortest form of a size: one number for a square."""
    return height if height == width else (height, width)


def size_text(size: ImageSize) -> str:
    """Format a size for prose: `56`, or `56 x 84` for a height of 56 pixels and a width of 84."""
    height, width = height_and_width(size)
    return str(height) if height == width else f"{height} x {width}"


def size_value(size: ImageSize) -> str:
    """Format a size as the value of a key: `56` or `[56, 84]`."""
    return str(size) if isinstance(size, int) else str(list(size))


def require_size(size: Any, key: str) -> None:
    """Refuse a size that is neither a number of pixels nor a height and a width; None passes.

    Args:
        size: The size.
        key: Name of the field, with which the message begins.

    Raises:
        ConfigError: It is something else, not positive, or larger than `LARGEST`.
    """
    if size is None:
        return
    numbers = tuple(size) if isinstance(size, tuple | list) else (size, size)
    require(len(numbers) == 2, f"{key}={list(numbers)}: expected one number of pixels, or [height, width]")
    for number in numbers:
        require(number > 0, f"{key} must be positive, got {number}")
        require(number <= LARGEST, f"{key} must be at most {LARGEST:,}, got {number}")

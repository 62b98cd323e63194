"""The order of the numbers in `summary.json`: first those that people look for. Standard library only."""

from typing import Any

PREFIXES = ("val/", "test/", "train/", "toy/")
"""Scores of the model, which follow its name."""
FIRST_NUMBERS = (
    "sink/events",
    "sink/nop",
    "sink/broadcast",
    "sink/other",
    "sink/mass_max",
    "images_per_second",
    "wall_seconds",
    "peak_memory_gib",
    "parameters",
    "match_difference",
    "steps",
    "epochs",
    "restarts",
    "device",
    "world_size",
    "threads",
    "git_revision",
)


def sort_summary(summary: dict[str, Any]) -> dict[str, Any]:
    """Sort a summary: name, scores, sinks, speed and size, all other numbers, values per block, nested tables."""
    return dict(sorted(summary.items(), key=lambda item: (*_rank(*item), item[0])))


def _rank(key: str, value: Any) -> tuple[int, int]:
    """Group of a key, and its position in the group unless it is alphabetical."""
    if isinstance(value, dict | list):
        return 5, 0
    if key == "name":
        return 0, 0
    prefix = next((i for i, start in enumerate(PREFIXES) if key.startswith(start)), None)
    if prefix is not None:
        return 1, prefix
    if key in FIRST_NUMBERS:
        return 2, FIRST_NUMBERS.index(key)
    return (4 if "/block" in key else 3), 0

"""The names under which scalars appear in W&B, whose workspace shows all names of one prefix as one section."""

import re

MOST_PANELS = 30
"""Largest number of panels in a section; with more, a workspace is hard to read."""
BLOCKS = 24
"""Blocks per section of a quantity that is logged for every block."""


def panel(name: str) -> str:
    """Return the W&B name of a scalar: `section/name` with a single slash, so that W&B forms the same sections
    whether it groups by the first or the last prefix.

    Names with one slash at most stay as they are. In longer ones all slashes but the last become underscores:
    `sink/adaptive/nop` is `sink_adaptive/nop`. Blocks 24 and above have sections of their own: `sink/events/block30` is
    `sink_events_from_block24/block30`.
    """
    path, _, last = name.rpartition("/")
    section = path.replace("/", "_")
    block = re.fullmatch(r"block(\d+)", last)
    if block and int(block[1]) >= BLOCKS:
        section += f"_from_block{int(block[1]) // BLOCKS * BLOCKS}"
    return f"{section}/{last}" if section else last

"""Names in messages: the first few of a list, and those close to a misspelled one. Standard library only."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

LISTED = 20
"""Number of known names that `did_you_mean_or_list` lists."""


def first_few(names: Sequence[str], most: int = 3, separator: str = ", ") -> str:
    """Return the first names as text, with the number of the others: `a, b, c and 4 more`."""
    others = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + others


def did_you_mean(word: str, known: Iterable[str], most: int = 1, *, beginnings: bool = False) -> str:
    """Return the end of a message, `; did you mean X?`, or an empty string when no known name is close.

    Nothing may follow it: a caller that also lists the valid names uses `did_you_mean_or_list`.

    Args:
        word: The misspelled name.
        known: All valid names.
        most: Largest number of suggestions.
        beginnings: A name is also close if its beginning is: `vit_tinny` to `vit_tiny_patch16_224`.
    """
    names: dict[str, list[str]] = {}
    for name in known:
        for text in {name, name[: len(word)] if beginnings else name}:
            names.setdefault(text, []).append(name)
    texts = get_close_matches(word, names, n=most, cutoff=0.6)
    near = list(dict.fromkeys(name for text in texts for name in names[text]))[:most]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def did_you_mean_or_list(word: str, known: Iterable[str]) -> str:
    """Return the end of a message: up to three close names, or the first known names when none is close."""
    names = list(known)
    more = ", …" if len(names) > LISTED else ""
    return did_you_mean(word, names, most=3) or f"; choose from {', '.join(names[:LISTED])}{more}"

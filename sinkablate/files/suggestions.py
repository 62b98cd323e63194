"""The nearest known name of a misspelled one. Standard library only."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message: `; did you mean X?`, or nothing when no known name is near."""
    names = list(known)
    near = get_close_matches(word, names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""

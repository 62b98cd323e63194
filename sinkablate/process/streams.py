"""The standard streams: what they can show, and a line on a terminal while something takes its time.

Standard library only: the line must appear before anything heavy is imported.
"""

import contextlib
import io
import sys
from collections.abc import Iterator

_CLEAR_LINE = "\r\x1b[2K"
_shown: list[str] = []


def escape_unencodable() -> None:
    """Print what the encoding of a terminal lacks as an escape (`\\u2013`) instead of failing at it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def announce(text: str) -> None:
    """Show on the last line of a terminal what is being waited for; the next `clear` or `announce` removes it.

    Nothing is written where stderr is not a terminal: a command that is refused leaves one line in a log.
    """
    clear()
    if sys.stderr.isatty():
        _shown.append(text)
        print(text, end="\r", file=sys.stderr, flush=True)  # whatever a library prints meanwhile goes over it


def clear() -> None:
    """Remove the line that `announce` shows, if there is one."""
    if _shown:
        _shown.clear()
        print(_CLEAR_LINE, end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def announced(text: str) -> Iterator[None]:
    """Show a line while the block runs."""
    announce(text)
    try:
        yield
    finally:
        clear()

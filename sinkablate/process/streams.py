"""The standard streams: their encoding, and a status line on a terminal during slow operations.

Standard library only, because the line must appear before anything heavy is imported.
"""

import contextlib
import io
import sys
from collections.abc import Iterator

_CLEAR_LINE = "\r\x1b[2K"
_shown: list[str] = []


def escape_unencodable() -> None:
    """Print characters that a terminal cannot encode as escapes (`\\u2013`) instead of raising an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show_status(text: str) -> None:
    """Show what is being waited for on the last line of a terminal, until `clear_status` or the next `show_status`.

    Nothing is written if stderr is not a terminal, so that a refused command leaves one line in a log.
    """
    clear_status()
    if sys.stderr.isatty():
        _shown.append(text)
        print(text, end="\r", file=sys.stderr, flush=True)  # output of a library overwrites it


def clear_status() -> None:
    """Remove the line of `show_status`, if there is one."""
    if _shown:
        _shown.clear()
        print(_CLEAR_LINE, end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def status(text: str) -> Iterator[None]:
    """Show a status line while the block runs."""
    show_status(text)
    try:
        yield
    finally:
        clear_status()

"""The rule for replacing files: a command replaces only what the same command wrote. Standard library only.

`--overwrite` allows a command to replace its own earlier output. It never allows it to replace or remove other files:
a directory that holds other files under the names that the command writes is refused, with `--overwrite` or without.
Files under other names stay, and are no reason to refuse.
"""

import json
from collections.abc import Collection, Iterable
from pathlib import Path

from sinkablate.errors import UserError


def refuse_foreign(directory: Path, names: Iterable[str], *, key: str, what: str) -> None:
    """Refuse a directory that holds no earlier output of a command, but does hold files that it would replace.

    Args:
        directory: The directory, without the marker of the command's output.
        names: Files and folders that the command writes or removes.
        key: The option that names the directory.
        what: What the directory is not, such as `a report (report.json)`.

    Raises:
        UserError: One of the files or folders exists and is not empty.
    """
    for name in names:
        if _has_content(path := directory / name):
            raise UserError(
                f"{key}={directory}: contains {name}{'/' if path.is_dir() else ''}, but is not {what}; choose "
                f"another --{key} (nothing was changed)"
            )


def refuse_foreign_file(path: Path, *, key: str, command: str) -> None:
    """Refuse a file to be written that exists, is not empty and was not written by a command.

    Args:
        path: The file, which does not look like output of the command.
        key: The option that names the file.
        command: The command.

    Raises:
        UserError: The file has content.
    """
    if _has_content(path):
        raise UserError(f"{key}={path}: was not written by {command}, so it is not replaced; choose another file")


def is_json_with(path: Path, keys: Collection[str]) -> bool:
    """Return whether a file is a JSON object with the given keys, by which a command recognizes its own output."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.keys() >= set(keys)


def _has_content(path: Path) -> bool:
    if path.is_dir():
        return any(path.iterdir())
    return path.is_file() and path.stat().st_size > 0

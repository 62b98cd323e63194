"""Write files and folders atomically: a reader sees the old content or the new one, never a part of it.

Standard library only.
"""

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sinkablate.errors import UserError


def write_json(path: Path, content: dict[str, Any], *, sort: bool = True) -> None:
    """Write a JSON file atomically; NaN and infinity become null.

    Raises:
        UserError: The file cannot be written.
    """
    write_text(path, json_text(content, sort_keys=sort) + "\n")


def write_text(path: Path, text: str, hint: str = "") -> None:
    """Write a UTF-8 text file atomically.

    Args:
        path: The file.
        text: Its content.
        hint: Appended to the error message.

    Raises:
        UserError: The file cannot be written.
    """
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"), hint)


def write_atomically(path: Path, write: Callable[[Path], Any], hint: str = "") -> None:
    """Write a file through a temporary one, and name it in the error message if that fails.

    Args:
        path: The file; a symbolic link is replaced, its target is left alone.
        write: Writes the content to the path it is called with.
        hint: Appended to the error message.

    Raises:
        UserError: The file cannot be written, for example because the disk is full.
    """
    with naming(path, hint), replacing(path) as partial:
        write(partial)


@contextmanager
def replacing(path: Path, *, folder: bool = False, fsync: bool = False, concurrent: bool = False) -> Iterator[Path]:
    """Yield a temporary path that takes the place of `path` when the block succeeds, and is removed when it fails.

    Args:
        path: File, symbolic link or folder to write. An existing folder is replaced only if it is empty.
        folder: Create the temporary path as an empty folder.
        fsync: Flush the file to the disk before the rename, so that it survives a power failure.
        concurrent: Several processes may write `path` at the same time, each through a temporary path of its own.

    Raises:
        OSError: The path cannot be written.
    """
    with temporary_sibling(path, concurrent=concurrent) as partial:
        if folder:
            partial.mkdir()
        yield partial
        if fsync:
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(partial, path)


@contextmanager
def temporary_sibling(path: Path, *, concurrent: bool = False) -> Iterator[Path]:
    """Yield a hidden path in the folder of `path`, and remove what is left there at the end of the block.

    Args:
        path: The path that is finally written.
        concurrent: Add the process ID to the name. Without it, leftovers of a killed process are removed first.

    Raises:
        OSError: A leftover cannot be removed.
    """
    process = f".{os.getpid()}" if concurrent else ""
    partial = path.with_name(f".{path.name.lstrip('.')}{process}.partial")
    remove(partial)
    try:
        yield partial
    finally:
        with suppress(OSError):
            remove(partial)


def remove(path: Path) -> None:
    """Remove a file, a symbolic link (not its target) or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def naming(path: Path, hint: str = "") -> Iterator[None]:
    """Turn an `OSError` of the block into a one-line error that names the file: the original often does not.

    Args:
        path: The file or folder that the block writes.
        hint: Appended to the message.

    Raises:
        UserError: It cannot be written, for example because the disk is full.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}{hint}") from None


def remove_files(folder: Path, pattern: str) -> None:
    """Remove the files of a folder whose names match a glob pattern, and the folder if that leaves it empty."""
    for path in folder.glob(pattern):
        if path.is_file() or path.is_symlink():
            path.unlink()
    with suppress(OSError):
        folder.rmdir()


def json_text(content: Any, **options: Any) -> str:
    """Serialize to JSON, indented by two; NaN and infinity become null.

    Args:
        content: Dicts, lists and plain values.
        options: Options of `json.dumps`.
    """
    return json.dumps(finite(content), **{"indent": 2, "allow_nan": False, **options})


def as_stored(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content as it would be read back from a JSON file, to compare it with stored content."""
    stored: dict[str, Any] = json.loads(json.dumps(content))
    return stored


def finite(tree: Any) -> Any:
    """Replace NaN and infinity with None in nested dicts and lists."""
    if isinstance(tree, dict):
        return {key: finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree

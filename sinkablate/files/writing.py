"""Files that are written whole or not at all, and one line with the name of a file that cannot be written."""

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sinkablate.errors import UserError


def write_json(path: Path, content: dict[str, Any], *, sort: bool = True) -> None:
    """Write a JSON file whole or not at all; what is not finite becomes null."""
    text = json.dumps(finite(content), indent=2, sort_keys=sort, allow_nan=False) + "\n"
    write_whole(path, lambda partial: partial.write_text(text))


def write_whole(path: Path, write: Callable[[Path], Any], hint: str = "") -> None:
    """Write a file under a temporary name, then rename it: it is there whole or not at all.

    Args:
        path: The file; a link in its place is replaced, and what it points to is left alone.
        write: Writes to the path that it is given.
        hint: Ends the message.

    Raises:
        UserError: It cannot be written, as on a full disk.
    """
    partial = path.with_name(f".{path.name}.partial")
    with naming(path, hint):
        try:
            partial.unlink(missing_ok=True)  # a link that somebody else left there would be written through
            write(partial)
            os.replace(partial, path)
        except OSError:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


@contextmanager
def naming(path: Path, hint: str = "") -> Iterator[None]:
    """Turn an error of the operating system into one line that names a file: its own often does not.

    Args:
        path: What the block writes.
        hint: Ends the message.

    Raises:
        UserError: It cannot be written, as on a full disk.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}{hint}") from None


def remove_files(folder: Path, pattern: str) -> None:
    """Remove the files that a command wrote into a folder, by a pattern of their names, and the folder if it is empty.

    What somebody else put there stays.
    """
    for path in folder.glob(pattern):
        if path.is_file() or path.is_symlink():
            path.unlink()
    with suppress(OSError):
        folder.rmdir()


def finite(tree: Any) -> Any:
    """The same with null for every number that JSON does not know."""
    if isinstance(tree, dict):
        return {key: finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree

"""A folder of finished parts, so that a command that was interrupted resumes after the last of them.

OUT/MARKER         what the parts belong to: a command that computes anything else is refused
OUT/parts/A-B.*    finished parts, removed when the results are written
OUT/summary.json   written last: all results are complete
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sinkablate.errors import UserError
from sinkablate.files.writing import naming, remove_files, write_atomically, write_json

RESUMES = "; finished batches are kept, run the same command again to resume"


class ResumableStore:
    """Parts that are written one by one, and the identity of what they belong to.

    Args:
        out: The directory.
        marker: Name of the file that holds the identity.
        suffix: Suffix of the files of the parts.
        identity: What is computed, as plain values.
    """

    def __init__(self, out: Path, marker: str, suffix: str, identity: dict[str, Any]) -> None:
        self.out, self.marker, self.identity = out, out / marker, identity
        self.parts, self._suffix = out / "parts", suffix
        self.overwrite = False
        """The directory holds something else, which `clear` has yet to remove."""

    @property
    def finished(self) -> bool:
        """True if the results are complete."""
        return not self.overwrite and (self.out / "summary.json").exists()

    def make_folder(self) -> None:
        """Create the folder of the parts.

        Raises:
            UserError: It cannot be created.
        """
        with naming(self.out):
            self.parts.mkdir(parents=True, exist_ok=True)

    def mark(self) -> None:
        """Write the identity, unless it is stored already and is not to be overwritten."""
        if self.overwrite or not self.marker.exists():
            write_json(self.marker, self.identity, sort=False)

    def write_part(self, first: int, last: int, write: Callable[[Path], Any]) -> None:
        """Write one part atomically.

        Args:
            first: Number of the first item of the part.
            last: Number after the last item of the part.
            write: Writes the part to the path it is called with.

        Raises:
            UserError: It cannot be written, for example because the disk is full.
        """
        write_atomically(self.parts / f"{first:09d}-{last:09d}{self._suffix}", write, RESUMES)

    def part_paths(self) -> list[Path]:
        """Return the files of the finished parts, in order."""
        return sorted(self.parts.glob(f"[0-9]*-[0-9]*{self._suffix}"), key=_numbers)

    def remove_parts(self) -> None:
        """Remove the finished parts, and what a killed process left half-written."""
        for pattern in (f"[0-9]*-[0-9]*{self._suffix}", f".[0-9]*-[0-9]*{self._suffix}.partial"):
            remove_files(self.parts, pattern)


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in path.stem.split("-")]


def refuse_another(
    stored: dict[str, Any],
    identity: dict[str, Any],
    what: str,
    hint: str = "choose another --out, or start over with --overwrite true",
) -> None:
    """Check that a directory holds what the command computes.

    Args:
        stored: The identity of what it holds.
        identity: The identity of what the command computes.
        what: The beginning of the message.
        hint: The end of the message.

    Raises:
        UserError: They differ; the message names the first difference.
    """
    for key, value in identity.items():
        if stored.get(key) != value:
            raise UserError(f"{what} with {key}={stored.get(key)}, not {value}; {hint}")

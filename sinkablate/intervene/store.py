"""What an intervention has finished, on disk: shards add to it side by side, and a rerun goes on.

OUT/intervention.json   what is edited: a rerun with anything else is refused
OUT/diagnosis/          which heads are sinks, where (unless a diagnosis was given)
OUT/values.npz          what every image's heads hand out
OUT/parts/*.json        rows of finished images, gone when all is summarized
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from sinkablate.errors import UserError
from sinkablate.files.writing import remove_files
from sinkablate.run.directory import INTERVENTION
from sinkablate.run.reading import read_json
from sinkablate.run.resumable import ResumableStore, refuse_another

TABLES = ("rows", "heads", "classes", "validation")
RESULTS = ("intervention.json", "summary.json", "values.npz", *(f"{name}.parquet" for name in TABLES))
PARTS = "[0-9]*-[0-9]*.json"
"""Names of the files of finished images."""
FOLDERS = {
    "parts": (PARTS,),
    "figures": ("edits_by_label.*", "effect_by_ratio.*"),
    "diagnosis/figures": ("handoff.*", "frequency.*", "atlas.*", "token_norms.*", "sensitivity.*", "stripes.*"),
    "diagnosis/parts": ("[0-9]*-[0-9]*.npz",),
    "diagnosis": (
        "diagnosis.json",
        "summary.json",
        "heads.parquet",
        "blocks.parquet",
        "sensitivity.parquet",
        "per_image.npz",
    ),
}
"""What an intervention wrote, by folder."""


class Rows(ResumableStore):
    """The finished rows of one intervention.

    Args:
        out: The directory.
        identity: What is edited, as plain values.
        overwrite: Start over in a directory that holds another intervention.

    Raises:
        UserError: The directory holds something else.
    """

    def __init__(self, out: Path, identity: dict[str, Any], *, overwrite: bool) -> None:
        super().__init__(out, INTERVENTION, ".json", identity)
        self._lock = out / ".lock"
        self.overwrite = overwrite and self.marker.exists()
        if self.marker.exists():
            if not overwrite:
                refuse_another(read_json(self.marker) or {}, identity, f"out={out} holds an intervention")
        elif out.is_dir() and any(path.name not in ("diagnosis", "parts", ".lock") for path in out.iterdir()):
            raise UserError(f"out={out} holds something that is no intervention; choose another --out")

    def open(self) -> None:
        """Make the directory, and begin it anew if that was asked for: all that can be refused has been."""
        self.make_folder()
        if self.overwrite:
            with self.alone():
                self._clear()
            self.overwrite = False
            self.parts.mkdir(exist_ok=True)

    @contextmanager
    def abandoned_on_error(self) -> Iterator[None]:
        """Remove the directory again if the block fails before there is anything to keep."""
        try:
            yield
        except UserError:
            if not self.marker.exists():
                self._lock.unlink(missing_ok=True)
                for path in (self.parts, self.out):
                    with suppress(OSError):
                        path.rmdir()
            raise

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One process at a time, the others wait."""
        with FileLock(self._lock):
            yield

    def done(self) -> set[int]:
        """Images whose rows are here."""
        return {image for part in self._parts() for image in part["images"]}

    def add(self, images: list[int], rows: list[dict[str, Any]]) -> None:
        """Keep the rows of some images."""
        content = json.dumps({"images": images, "rows": rows})
        self.write_part(images[0], images[-1], lambda path: path.write_text(content, encoding="utf-8"))

    def read(self) -> list[dict[str, Any]]:
        """All rows, by block, head and edit within an image; every image once."""
        by_image: dict[int, list[dict[str, Any]]] = {}
        for part in self._parts():
            rows: dict[int, list[dict[str, Any]]] = {image: [] for image in part["images"]}
            for row in part["rows"]:
                rows[row["place"]].append(row)
            by_image |= rows
        return [row for image in sorted(by_image) for row in by_image[image]]

    def close(self) -> None:
        """Drop the parts and the lock, whose waiters find that nothing is left to do."""
        self.remove_parts()
        self._lock.unlink(missing_ok=True)

    def _parts(self) -> Iterator[dict[str, Any]]:
        for path in self.part_paths():
            part = read_json(path) or {}
            if not isinstance(part.get("images"), list) or not isinstance(part.get("rows"), list):
                raise UserError(f"{path}: damaged; remove it, and the same command makes it again")
            yield part

    def _clear(self) -> None:
        for folder, patterns in FOLDERS.items():
            for pattern in patterns:
                remove_files(self.out / folder, pattern)
        for name in RESULTS:
            (self.out / name).unlink(missing_ok=True)

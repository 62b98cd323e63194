"""The finished rows of an intervention on disk: shards add to them in parallel, and a rerun resumes.

OUT/intervention.json   what is edited; a run that edits anything else is refused
OUT/diagnosis/          the diagnosis that finds the sinks, unless one was given
OUT/values.npz          values of the edited heads on every image, from which donors are taken
OUT/parts/*.json        rows of finished images, removed when the results are written
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from sinkablate.diagnose import store as of_diagnosis
from sinkablate.errors import UserError
from sinkablate.files.ownership import is_json_with, refuse_foreign
from sinkablate.files.writing import remove_files
from sinkablate.run.directory import CONFIG, DIAGNOSIS, EVALUATION, INTERVENTION
from sinkablate.run.reading import read_json
from sinkablate.run.resumable import ResumableStore, refuse_another

TABLES = ("rows", "heads", "classes", "validation")
RESULTS = ("summary.json", "values.npz", *(f"{name}.parquet" for name in TABLES), INTERVENTION)
PARTS = "[0-9]*-[0-9]*.json"
"""Names of the files of finished images."""
WRITTEN = (CONFIG, "checkpoints", DIAGNOSIS, EVALUATION, "figures", *RESULTS)
"""Files that an intervention writes, and files that show that the directory belongs to another command."""
FOLDERS = {
    "parts": (PARTS,),
    "figures": ("edits_by_label.*", "effect_by_ratio.*"),
    "diagnosis/figures": tuple(f"{name}.*" for name in of_diagnosis.FIGURES),
    "diagnosis/parts": (of_diagnosis.PARTS,),
    "diagnosis": (DIAGNOSIS, *of_diagnosis.RESULTS),
}
"""Files that an intervention writes, by folder."""


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
        if not is_json_with(self.marker, ("model", "heads", "edits")):
            refuse_foreign(out, WRITTEN, key="out", what=f"an intervention ({INTERVENTION})")
        elif not overwrite:
            refuse_another(read_json(self.marker) or {}, identity, f"out={out} holds an intervention")

    def open(self) -> None:
        """Create the directory, and start over with `overwrite`, once all checks have passed."""
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
        """Run the block while all other processes wait to enter theirs."""
        with FileLock(self._lock):
            yield

    def done(self) -> set[int]:
        """Return the images whose rows are stored."""
        return {image for part in self._parts() for image in part["images"]}

    def add(self, images: list[int], rows: list[dict[str, Any]]) -> None:
        """Store the rows of some images."""
        content = json.dumps({"images": images, "rows": rows})
        self.write_part(images[0], images[-1], lambda path: path.write_text(content, encoding="utf-8"))

    def read(self) -> list[dict[str, Any]]:
        """Return all rows, image by image, in the order of blocks, heads and edits."""
        by_image: dict[int, list[dict[str, Any]]] = {}
        for part in self._parts():
            rows: dict[int, list[dict[str, Any]]] = {image: [] for image in part["images"]}
            for row in part["rows"]:
                rows[row["place"]].append(row)
            by_image |= rows
        return [row for image in sorted(by_image) for row in by_image[image]]

    def close(self) -> None:
        """Remove the parts and the lock."""
        self.remove_parts()
        self._lock.unlink(missing_ok=True)

    def _parts(self) -> Iterator[dict[str, Any]]:
        for path in self.part_paths():
            part = read_json(path) or {}
            if not isinstance(part.get("images"), list) or not isinstance(part.get("rows"), list):
                raise UserError(f"{path}: damaged; remove it and run the same command again")
            yield part

    def _clear(self) -> None:
        for folder, patterns in FOLDERS.items():
            for pattern in patterns:
                remove_files(self.out / folder, pattern)
        for name in RESULTS:
            (self.out / name).unlink(missing_ok=True)

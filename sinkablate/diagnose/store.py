"""What a diagnosis has measured so far, on disk: one file per finished batch, so that a rerun goes on after the last.

OUT/diagnosis.json   what is diagnosed: a rerun with anything else is refused
OUT/parts/*.npz      finished batches, gone when all is summarized
"""

from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sinkablate.data.errors import DataError
from sinkablate.diagnostics.records import Records
from sinkablate.errors import UserError
from sinkablate.files.writing import write_atomically
from sinkablate.run.directory import CONFIG, DIAGNOSIS, INTERVENTION
from sinkablate.run.reading import read_all_arrays, read_json
from sinkablate.run.resumable import RESUMES, ResumableStore, refuse_another
from sinkablate.vit.tokens import TokenLayout

GROUPS = ("heads", "mass", "tokens")
NO_REASON = "not stored"
"""Why pictures were skipped, in parts that an earlier version wrote."""
ARRAYS = ("order", "norms", "payload_sum", "payload_squares")


class Finished(NamedTuple):
    """All finished batches together."""

    records: Records | None
    """None when no picture could be read."""
    names: list[str]
    """Of the measured images, in their order."""
    numbers: list[int]
    """Their places among all pictures, the unreadable ones counted."""
    faults: list[str]
    """A line for each picture that could not be read."""
    reasons: list[str]
    """Why each of them could not: one of `REASONS`."""
    seconds: float
    rebuild_error: float
    """Largest relative error of a rebuilt block."""


class Store(ResumableStore):
    """The finished batches of one diagnosis.

    Args:
        out: The directory.
        identity: What is diagnosed, as plain values.
        overwrite: Start over in a directory that holds another diagnosis.

    Raises:
        UserError: The directory holds a diagnosis of something else.
    """

    def __init__(self, out: Path, identity: dict[str, Any], *, overwrite: bool) -> None:
        super().__init__(out, DIAGNOSIS, ".npz", identity)
        self.overwrite = overwrite
        if (
            overwrite
            and not self.marker.exists()
            and any((out / name).exists() for name in (CONFIG, "checkpoints", INTERVENTION))
        ):
            raise UserError(f"out={out} holds something that is no diagnosis; choose another --out")
        if overwrite:
            return
        if self.marker.exists():
            refuse_another(read_json(self.marker) or {}, identity, f"out={out} holds a diagnosis")
        elif (out / "summary.json").exists() or (out / "per_image.npz").exists():
            raise UserError(f"out={out} holds results of something else; choose another, or give --overwrite true")

    @property
    def position(self) -> int:
        """Number of the first picture that no finished batch holds."""
        ends = (int(path.stem.split("-")[1]) for path in self.part_paths())
        return 0 if self.overwrite else max(ends, default=0)

    def add(
        self,
        start: int,
        end: int,
        records: Records | None,
        *,
        names: list[str],
        faults: Sequence[DataError],
        seconds: float,
        rebuild_error: float,
    ) -> None:
        """Keep one batch: the pictures [start, end), of which `names` could be read, and what measuring it took.

        Raises:
            UserError: The disk is full.
        """
        self._open()
        content: dict[str, Any] = {
            "names": np.array(names),
            "faults": np.array([str(fault) for fault in faults], str),
            "reasons": np.array([fault.reason for fault in faults], str),
            "seconds": np.float64(seconds),
            "rebuild_error": np.float64(rebuild_error),
        }
        if records is not None:
            content |= {f"{group}/{name}": array for group in GROUPS for name, array in getattr(records, group).items()}
            content |= {name: getattr(records, name) for name in ARRAYS}
            content["layout"] = np.array(astuple(records.layout))
        self.write_part(start, end, lambda path: _save(path, content))

    def _open(self) -> None:
        """Make the directory, when there is something to keep: what is refused before leaves nothing behind."""
        if self.overwrite:
            for path in (self.marker, self.out / "summary.json"):
                path.unlink(missing_ok=True)
            self.remove_parts()
            self.overwrite = False
        if not self.marker.exists():
            self.make_folder()
            self.mark()

    def read(self) -> Finished:
        """Everything measured so far."""
        records: list[Records] = []
        names: list[str] = []
        numbers: list[int] = []
        faults: list[str] = []
        reasons: list[str] = []
        seconds, rebuild_error = 0.0, 0.0
        for path in self.part_paths():
            content = read_all_arrays(path)
            names += content["names"].tolist()
            faults += content["faults"].tolist()
            reasons += content["reasons"].tolist() if "reasons" in content else [NO_REASON] * len(content["faults"])
            seconds += float(content["seconds"])
            if "order" in content:
                records.append(_records(content))
                numbers += content["order"].tolist()
                rebuild_error = max(rebuild_error, float(content["rebuild_error"]))
        return Finished(
            Records.merge(records) if records else None, names, numbers, faults, reasons, seconds, rebuild_error
        )

    def discard(self) -> None:
        """Drop the batches and what they were of, as if nothing had been measured."""
        self.close()
        self.marker.unlink(missing_ok=True)

    def close(self) -> None:
        """Drop the batches; the results hold what is to be kept."""
        self.remove_parts()


def _records(content: dict[str, NDArray[Any]]) -> Records:
    groups: dict[str, Any] = {group: {} for group in GROUPS}
    for name, array in content.items():
        group, _, quantity = name.partition("/")
        if quantity:
            groups[group][quantity] = array
    arrays: dict[str, Any] = {name: content[name] for name in ARRAYS}
    return Records(layout=TokenLayout(*content["layout"].tolist()), **groups, **arrays)


def per_image(path: Path, records: Records, names: list[str], numbers: list[int]) -> None:
    """Write `per_image.npz`: every quantity (images, blocks, heads), `image_names`, `image_numbers`, the prefix tokens.

    Indices are stored in the smallest integers that hold them; `routed_frac_at_*` are left out: the sensitivity table
    is what they are for.
    """
    heads = {name: array for name, array in records.heads.items() if not name.startswith("routed_frac_at_")}
    heads["sink_idx"] = heads["sink_idx"].astype(np.int16 if heads["sink_idx"].max() < 2**15 else np.int32)
    heads["sink_type"] = heads["sink_type"].astype(np.int8)
    content: dict[str, Any] = {
        **heads,
        "image_names": np.array(names),
        "image_numbers": np.array(numbers),
        "num_prefix_tokens": np.int64(records.layout.num_prefix),
        "num_register_tokens": np.int64(records.layout.num_registers),
    }
    write_atomically(path, lambda partial: _save(partial, content, compressed=True), RESUMES)


def _save(path: Path, content: dict[str, Any], compressed: bool = False) -> None:
    with path.open("wb") as file:  # a file, because numpy appends .npz to a name
        (np.savez_compressed if compressed else np.savez)(file, **content)

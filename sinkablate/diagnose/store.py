"""The finished batches of a diagnosis on disk, one file per batch, so that a rerun resumes after the last one.

OUT/diagnosis.json   what is diagnosed; a rerun that diagnoses anything else is refused
OUT/parts/*.npz      finished batches, removed when the results are written
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
from sinkablate.files.ownership import is_json_with, refuse_foreign
from sinkablate.files.writing import write_atomically
from sinkablate.run.directory import CONFIG, DIAGNOSIS, INTERVENTION
from sinkablate.run.reading import read_all_arrays, read_json
from sinkablate.run.resumable import RESUMES, ResumableStore, refuse_another
from sinkablate.vit.tokens import TokenLayout

RESULTS = (
    "per_image.npz",
    "heads.parquet",
    "blocks.parquet",
    "sensitivity.parquet",
    "norm_histograms.parquet",
    "token_maps.parquet",
    "token_map_heads.parquet",
    "token_maps.npz",
    "summary.json",
)
FIGURES = ("handoff", "frequency", "entropy", "atlas", "token_norms", "token_maps", "sensitivity", "stripes")
"""Names of the files in `figures/`, without suffixes; `token_maps` is drawn for images only."""
PARTS = "[0-9]*-[0-9]*.npz"
"""Names of the files of finished batches."""
WRITTEN = (CONFIG, "checkpoints", DIAGNOSIS, INTERVENTION, "parts", "figures", *RESULTS)
"""Files that a diagnosis writes, and files that show that the directory belongs to a run or an intervention."""
GROUPS = ("heads", "mass", "candidates", "tokens")
NO_REASON = "not stored"
"""The reason for skipped images in parts written by an earlier version."""
ARRAYS = ("order", "norms", "input_norms", "payload_sum", "payload_squares")
OPTIONAL_ARRAYS = ("token_types", "patch_variance")
"""Arrays that not every measurement has."""


class Finished(NamedTuple):
    """All finished batches, merged."""

    records: Records | None
    """None if no image could be read."""
    names: list[str]
    """Names of the measured images, in order."""
    numbers: list[int]
    """Numbers of the measured images; unreadable images are numbered, too."""
    faults: list[str]
    """The error message of each image that could not be read."""
    reasons: list[str]
    """The reason for each of these errors, one of `REASONS`."""
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
        UserError: The directory holds something else, or a diagnosis of something else.
    """

    def __init__(self, out: Path, identity: dict[str, Any], *, overwrite: bool) -> None:
        super().__init__(out, DIAGNOSIS, ".npz", identity)
        self.overwrite = overwrite
        if not is_json_with(self.marker, ("model", "blocks", "thresholds")):
            refuse_foreign(out, WRITTEN, key="out", what=f"a diagnosis ({DIAGNOSIS})")
        elif not overwrite:
            refuse_another(read_json(self.marker) or {}, identity, f"out={out} holds a diagnosis")

    @property
    def position(self) -> int:
        """Number of the first image after the finished batches."""
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
        """Store one batch: the images [start, end), of which `names` could be read.

        Raises:
            UserError: The batch cannot be written, for example because the disk is full.
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
            optional = {name: getattr(records, name) for name in OPTIONAL_ARRAYS}
            content |= {name: array for name, array in optional.items() if array is not None}
        self.write_part(start, end, lambda path: _save(path, content))

    def _open(self) -> None:
        """Create the directory before the first batch is stored, so that a refused command leaves nothing behind."""
        if self.overwrite:
            (self.out / "summary.json").unlink(missing_ok=True)
            self.remove_parts()
        elif self.marker.exists():
            return
        self.make_folder()
        self.mark()
        self.overwrite = False

    def read(self) -> Finished:
        """Return all finished batches."""
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
                if "input_norms" not in content:
                    raise UserError(f"{path}: written by an earlier version; measure all images again with --overwrite")
                records.append(_records(content))
                numbers += content["order"].tolist()
                rebuild_error = max(rebuild_error, float(content["rebuild_error"]))
        return Finished(
            Records.merge(records) if records else None, names, numbers, faults, reasons, seconds, rebuild_error
        )

    def discard(self) -> None:
        """Remove the batches and the marker, as if nothing had been measured."""
        self.close()
        self.marker.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the batches once the results are written."""
        self.remove_parts()


def _records(content: dict[str, NDArray[Any]]) -> Records:
    groups: dict[str, Any] = {group: {} for group in GROUPS}
    for name, array in content.items():
        group, _, quantity = name.partition("/")
        if quantity:
            groups[group][quantity] = array
    arrays: dict[str, Any] = {name: content[name] for name in ARRAYS}
    arrays |= {name: content.get(name) for name in OPTIONAL_ARRAYS}
    return Records(layout=TokenLayout(*content["layout"].tolist()), **groups, **arrays)


def per_image(path: Path, records: Records, names: list[str], numbers: list[int]) -> None:
    """Write `per_image.npz`: all quantities (images, blocks, heads), names and numbers of the images, prefix tokens.

    Indices are stored as small integers. `routed_frac_at_*` are left out: only the sensitivity table needs them.
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
    with path.open("wb") as file:  # an open file, because numpy appends .npz to a name
        (np.savez_compressed if compressed else np.savez)(file, **content)

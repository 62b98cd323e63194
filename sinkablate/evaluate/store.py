"""The results of an evaluation on disk, task by task, so that a rerun computes only the tasks that are missing.

OUT/evaluation.json      what is evaluated and with which settings, then the numbers of the finished tasks
OUT/evaluation.parquet   the rows of the finished tasks
OUT/figures/             drawn from the rows
OUT/features/            cached features, unless features.cache names another folder
"""

from pathlib import Path
from typing import Any

import polars as pl

from sinkablate.evaluate.rows import SCHEMA, Row, table_of
from sinkablate.files.ownership import is_json_with, refuse_foreign
from sinkablate.files.writing import as_stored, naming, remove, write_atomically, write_json
from sinkablate.run.directory import CONFIG, DIAGNOSIS, EVALUATION, INTERVENTION
from sinkablate.run.reading import read_json, read_parquet
from sinkablate.run.resumable import refuse_another

TABLE, FIGURES, FEATURES = "evaluation.parquet", "figures", "features"
WRITTEN = (CONFIG, "checkpoints", DIAGNOSIS, INTERVENTION, EVALUATION, TABLE, FIGURES, FEATURES)
"""Files that an evaluation writes, and files that show that the directory belongs to another command."""
KEPT = "; finished tasks are kept, run the same command again to resume"


def require_own(out: Path) -> None:
    """Refuse a directory that holds files that an evaluation would replace, and no evaluation.

    Raises:
        UserError: It does; the message names the first file or folder.
    """
    if not is_json_with(out / EVALUATION, ("model", "tasks", "seeds")):
        refuse_foreign(out, WRITTEN, key="out", what=f"an evaluation ({EVALUATION})")


class Store:
    """The results of one evaluation.

    Args:
        out: The directory.
        identity: What is evaluated, as plain values, without the tasks.
        tasks: Task -> everything else that determines its numbers, as plain values.
        overwrite: Start over in a directory that holds another evaluation.

    Raises:
        UserError: The directory holds something else, or an evaluation of something else or with other settings. Tasks
            may be added to an evaluation.
    """

    def __init__(self, out: Path, identity: dict[str, Any], tasks: dict[str, Any], *, overwrite: bool) -> None:
        self.out, self.marker, self.table = out, out / EVALUATION, out / TABLE
        self._overwrite = overwrite
        self.identity = as_stored(identity | {"tasks": tasks})
        require_own(out)
        if self.marker.exists() and not overwrite:
            self._compare(self.summary)

    def _compare(self, stored: dict[str, Any]) -> None:
        """Refuse results of something else; keep the settings of the finished tasks that are not asked for again."""
        finished = {name: settings for name, settings in stored["tasks"].items() if name in self.finished}
        if not finished:
            return
        where = f"out={self.out} holds an evaluation"
        refuse_another(stored, {key: value for key, value in self.identity.items() if key != "tasks"}, where)
        for name, settings in finished.items():
            refuse_another(settings, self.identity["tasks"].get(name, {}), f"{where} ({name})")
        self.identity["tasks"] = finished | self.identity["tasks"]

    def open(self) -> None:
        """Create the directory and write what is evaluated; with `overwrite`, remove the earlier results."""
        if self._overwrite:
            for path in (self.table, self.marker):
                remove(path)
            self._overwrite = False
        with naming(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
        stored = self.summary
        if any(stored.get(key) != value for key, value in self.identity.items()):
            write_json(self.marker, (stored if self.finished else {}) | self.identity, sort=False)

    @property
    def rows(self) -> pl.DataFrame:
        """The rows of the finished tasks."""
        if self._overwrite or not self.table.exists():
            return pl.DataFrame(schema=SCHEMA)
        return read_parquet(self.table, tuple(SCHEMA))

    @property
    def finished(self) -> set[str]:
        """Names of the finished tasks."""
        return set(self.rows["task"])

    @property
    def summary(self) -> dict[str, Any]:
        """The content of `evaluation.json`; empty if there is none."""
        return read_json(self.marker) or {}

    @property
    def summarized(self) -> bool:
        """True if `evaluation.json` has the numbers of all finished tasks."""
        return self.finished <= self.summary.get("seconds", {}).keys()

    def add(self, rows: list[Row]) -> None:
        """Store the rows of a task.

        Raises:
            UserError: They cannot be written, for example because the disk is full.
        """
        table = pl.concat([self.rows, table_of(rows)])
        write_atomically(self.table, table.write_parquet, KEPT)

    def summarize(self, results: dict[str, Any]) -> dict[str, Any]:
        """Write `evaluation.json` with the numbers of all finished tasks, and return it."""
        content = self.identity | results
        write_json(self.marker, content, sort=False)
        return content

"""Write `metrics.csv`: one row per step; a resumed run continues the file."""

import csv
import io
import os
import re
from argparse import Namespace
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from sinkablate.errors import UserError
from sinkablate.files.writing import naming, write_atomically

MOVE_AWAY = "repair it, or move it away to resume without the earlier rows"


class MetricsCsv(Logger):
    """Merge everything that is logged at one step into one row, and write a row when its step is over.

    Args:
        run_dir: Directory of `metrics.csv`.
    """

    def __init__(self, run_dir: str) -> None:
        super().__init__()
        self.path = Path(run_dir) / "metrics.csv"
        self._columns: list[str] = []
        self._pending: dict[int, dict[str, Any]] = {}
        self._flushed = -1  # latest row written for a checkpoint; additions to it are written at once

    @property
    def name(self) -> str:
        """Empty: the run directory is the log directory."""
        return ""

    @property
    def version(self) -> str:
        """Empty, like `name`."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run directory."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: `config.yaml` holds the configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add values to the row of `step`; rows more than one step back are complete and are written.

        Lightning counts training steps from 0, callbacks count completed steps: the values of one step arrive under
        two numbers.
        """
        step = -1 if step is None else step
        if step <= self._flushed:
            self._reopen(step)
        self._pending.setdefault(step, {"step": step}).update(metrics)
        self._write([s for s in self._pending if s < step - 1 or s <= self._flushed])

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Drop the rows after the step that the training resumes from; the row of that step can still change."""
        self._reopen(step)
        self._pending = {at: row for at, row in self._pending.items() if at <= step}
        self._flushed = max(self._flushed, step - 1)

    @rank_zero_only
    def save(self) -> None:
        """Do nothing: rows are written when they are complete, and Lightning calls this several times per step."""

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Write all rows, because a run that resumes from the checkpoint needs everything before it.

        If values are added to a row later, as with the loss of the saved step, the row is first read back.
        """
        saved = getattr(checkpoint_callback, "_last_global_step_saved", -1)
        self._flushed = max(self._flushed, saved, *self._pending)
        self._write(list(self._pending))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the remaining rows; an error while writing does not hide the error of a failed run."""
        with suppress(UserError) if status == "failed" else nullcontext():
            self._write(list(self._pending))

    def _reopen(self, step: int) -> None:
        """Read the rows at and after `step` back from the file, so that values can be added to them."""
        if not self.path.exists():
            return
        rows = self._read()
        for row in rows:
            if int(row["step"]) >= step:
                self._pending[int(row["step"])] = {key: value for key, value in row.items() if value}
        self._rewrite([row for row in rows if int(row["step"]) < step])

    def _write(self, steps: list[int]) -> None:
        rows = [self._pending.pop(step) for step in sorted(steps)]
        if not rows:
            return
        if any(row.keys() - set(self._columns) for row in rows):
            before = self._read()
            self._columns += dict.fromkeys(key for row in rows for key in row if key not in self._columns)
            self._rewrite(before)
        size = self.path.stat().st_size
        with naming(self.path):
            try:
                with self.path.open("a", newline="", encoding="utf-8") as file:
                    csv.DictWriter(file, self._columns).writerows(rows)
            except OSError:
                os.truncate(self.path, size)  # a full disk may have written half a row
                raise

    def _read(self) -> list[dict[str, str]]:
        """Return the rows of the file and remember its columns; a last row that a kill cut off is dropped.

        Raises:
            UserError: The file was not written by this logger.
        """
        try:
            text = self.path.read_bytes().decode()
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError):
            raise UserError(f"{self.path} cannot be read; {MOVE_AWAY}") from None
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
        rows = list(reader)
        for number, row in enumerate(rows, 2):
            if not re.fullmatch(r"-?\d+", row.get("step") or "") or None in row:
                raise UserError(f"{self.path}, line {number}: not a row of metrics with a step number; {MOVE_AWAY}")
        self._columns = list(reader.fieldnames or [])
        return rows

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        """Rewrite the file atomically with all columns known so far."""

        def write(partial: Path) -> None:
            with partial.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self._columns)
                writer.writeheader()
                writer.writerows(rows)

        with naming(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, write)

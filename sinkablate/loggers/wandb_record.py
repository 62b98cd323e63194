"""Keep in `wandb.json` which W&B run a directory logs to and what was logged, so that a resumed run continues it."""

import json
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sinkablate.files.writing import write_json
from sinkablate.run.directory import WANDB

MOST_LETTERS = 80
"""Longest readable part of an id; W&B creates a folder of that name."""


class WandbRecord:
    """The W&B run of one run directory.

    The id is drawn when a run starts from scratch, because two runs of the same name in different directories are two
    W&B runs. A resumed run reads it from here, together with the last step that was logged of each group of metrics:
    after a kill it repeats steps that W&B already has, and does not log them twice. What W&B's own process had not
    written when it was killed is missing in W&B and complete in `metrics.csv`. A copy of a run that resumes while the
    original still exists becomes another W&B run.

    Args:
        run_dir: Directory of the run.
        name: Readable part of a new id.
        given: An id that the user chose; it replaces a stored one.
    """

    def __init__(self, run_dir: Path, name: str, given: str | None = None) -> None:
        self._path = run_dir / WANDB
        self._run_dir = str(run_dir.resolve())
        stored = self._stored()
        if (home := stored.get("run_dir", self._run_dir)) != self._run_dir and Path(home, WANDB).exists():
            stored = {}
        readable = re.sub(r"[^\w.=+-]+", "_", name)[:MOST_LETTERS]
        self.id = given or stored.get("id") or f"{readable}-{secrets.token_hex(4)}"
        self._logged: dict[str, int] = stored.get("logged", {}) if stored.get("id") == self.id else {}
        self._write()

    def is_new(self, metrics: Iterable[str], step: int) -> bool:
        """Return whether a group of metrics is new at a step, and remember that it was logged.

        A group always has the same names, so the first name identifies it.
        """
        group = min(
            (name for name in metrics if name != "epoch"), default="epoch"
        )  # Lightning adds `epoch` to every group
        if step <= self._logged.get(group, -1):
            return False
        self._logged[group] = step
        self._write()
        return True

    def _stored(self) -> dict[str, Any]:
        """Return the content that an earlier process left; empty if it cannot be read."""
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _write(self) -> None:
        write_json(self._path, {"id": self.id, "run_dir": self._run_dir, "logged": self._logged})


def agents_id() -> str | None:
    """Return the id that `wandb agent` gave this run, which is the only one that W&B accepts for it."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None

"""`wandb.json`: which W&B run a directory records to, and what that run was told, so that it goes on as itself."""

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
"""Of the readable part of an id; W&B makes a folder of it."""


class WandbRecord:
    """The W&B run of one run directory.

    The id is drawn when a run starts afresh, because two runs of the same name in different directories are two runs
    of W&B. A resumed run finds it here. It also finds the last step that was logged of each group of metrics: after a
    kill it trains steps again that W&B has already, and they are not logged twice; what W&B's own process had not
    written by then is missing there, and complete in `metrics.csv`. A copy of a run that resumes next to the original
    is another run of W&B.

    Args:
        run_dir: Directory of the run.
        name: Readable part of a new id.
        given: Id that was asked for; it replaces one that is stored.
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
        """True the first time that a group of metrics is logged at a step, which is noted before it is logged.

        Every group is logged under the same names each time, so that the first of them stands for all.
        """
        group = min((name for name in metrics if name != "epoch"), default="epoch")  # Lightning adds epoch to each
        if step <= self._logged.get(group, -1):
            return False
        self._logged[group] = step
        self._write()
        return True

    def _stored(self) -> dict[str, Any]:
        """What an earlier process left; nothing where it cannot be read."""
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self) -> None:
        write_json(self._path, {"id": self.id, "run_dir": self._run_dir, "logged": self._logged})


def agents_id() -> str | None:
    """The id that `wandb agent` gave this run; W&B takes no other one for a run of an agent."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None

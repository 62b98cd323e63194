"""Log to Weights & Biases in addition to the local record; its failures never stop training."""

import os
import re
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import lightning as L
import wandb
from lightning.fabric.loggers.logger import _DummyExperiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from pydantic import ValidationError

from sinkablate.config import WandbConfig
from sinkablate.errors import first_line
from sinkablate.loggers.panels import panel
from sinkablate.loggers.wandb_record import WandbRecord, agents_id
from sinkablate.run.directory import CONFIG

RESULTS = (CONFIG, "metrics.csv", "diagnostics/**/*.parquet")
"""Files of a run directory that its artifact holds; checkpoints stay local."""


class FaultTolerantWandbLogger(WandbLogger):
    """A `WandbLogger` that survives a failing server, key or network: it warns once and training continues.

    Scalars have the names that :func:`panel` gives them. When the training succeeds, the results become one artifact.

    Args:
        record: Returns the record of the directory's W&B run; called once the run directory is ready.
        **kwargs: Arguments of `WandbLogger` except `id`.
    """

    def __init__(self, record: Callable[[], WandbRecord], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._wandb_init.pop("anonymous")  # wandb warns about it even when it is None
        self._make_record = record
        self._record: WandbRecord | None = None
        self.failed = False
        self._opened = False

    @property
    def experiment(self) -> Any:
        """The W&B run, which the first `log_hyperparams` opens.

        Lightning reads this property much earlier, when the run may still be refused and its directory does not
        exist. If the server or the key is rejected, an offline run takes its place.
        """
        if not self._opened:
            return _DummyExperiment()
        if self._experiment is None and self._wandb_init["mode"] == "offline":
            _say_once(f"W&B: offline; upload later with: {sync_command(str(self.save_dir))}")
        try:
            return super().experiment
        except Exception as error:
            if self.failed or self._wandb_init["mode"] == "offline":
                raise
            _warn(f"W&B: no online run ({_reason(error)}); recording offline")
            wandb.teardown()  # otherwise its service keeps the run's id in use
            self._wandb_init["mode"] = "offline"
            return super().experiment

    def _try(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        if self.failed:
            return
        try:
            call(*args, **kwargs)
        except Exception as error:
            self.failed = True
            _warn(f"W&B stopped ({_reason(error)}); training continues, the local record is complete")

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Open the run with its configuration; a failure is contained."""
        self._opened = True
        self._try(self._open, params)

    def _open(self, params: dict[str, Any] | Namespace) -> None:
        self._record = self._make_record()
        self._id = self._wandb_init["id"] = self._record.id
        super().log_hyperparams(params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars as `WandbLogger` does; a resumed run does not repeat what W&B already has.

        A failure is contained.
        """
        self._try(self._log, metrics, step)

    def _log(self, metrics: Mapping[str, float], step: int | None) -> None:
        if self._record is None or step is None or self._record.is_new(metrics, step):
            super().log_metrics({panel(name): value for name, value in metrics.items()}, step)

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """Log images as `WandbLogger` does; a failure is contained."""
        self._try(super().log_image, key, images, step, **kwargs)

    @rank_zero_only
    def log_table(self, key: str, *args: Any, **kwargs: Any) -> None:
        """Log a table as `WandbLogger` does; a failure is contained."""
        self._try(super().log_table, key, *args, **kwargs)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Upload the results as one artifact, and close the run so that an offline one can be synced at once."""
        if self._experiment is not None:
            if status == "success":
                self._try(self._log_results)
            self._try(self._experiment.finish, exit_code=0 if status == "success" else 1)

    def _log_results(self) -> None:
        """Log `RESULTS` as one artifact."""
        run_dir = Path(str(self.save_dir))
        artifact = wandb.Artifact(f"{re.sub(r'[^A-Za-z0-9_.-]', '_', str(self._id))}-results", "results")
        for path in (path for pattern in RESULTS for path in sorted(run_dir.glob(pattern))):
            artifact.add_file(str(path), str(path.relative_to(run_dir)))  # add_dir would print
        self.experiment.log_artifact(artifact)


@rank_zero_only
@cache
def _say_once(line: str) -> None:
    print(line, flush=True)


@rank_zero_only
def _warn(line: str) -> None:
    """Print a warning on one line; Python's own warnings add their source on a second one."""
    print(f"warning: {line}", file=sys.stderr, flush=True)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):  # of a setting that wandb reads from the environment
        first = error.errors()[0]
        return f"WANDB_{'_'.join(map(str, first['loc'])).upper()}: {first['msg']}"
    return first_line(error).rstrip(".")


def sync_command(run_dir: str) -> str:
    """Return the shell command that uploads the offline runs of a directory."""
    return f"wandb sync {shlex.quote(run_dir)}/wandb/offline-run-*"


MODES = {
    "online": "online",
    "run": "online",
    "shared": "shared",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
"""Value of WANDB_MODE -> mode."""


def wandb_mode(config: WandbConfig) -> str:
    """Return online, offline or disabled; `auto` follows WANDB_MODE, and is online where an API key is set.

    An error in the environment becomes a one-line warning: with a malformed key the run is recorded offline, with a
    setting that wandb rejects it is recorded without W&B.
    """
    for name in [name for name, value in os.environ.items() if name.startswith("WANDB_") and not value.strip()]:
        del os.environ[name]  # empty means unset; wandb would reject it
    mode: str | None = config.mode
    if mode == "auto":
        off = os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes", "on")
        mode = "disabled" if off else MODES.get(os.environ.get("WANDB_MODE", ""))
    if mode == "disabled":
        return mode
    try:
        wandb.setup(wandb.Settings(silent=True))  # otherwise a login queries the account's name
    except Exception as error:
        _warn(f"W&B: {_reason(error)}; training continues without it, the local record is complete")
        return "disabled"
    try:
        return mode or ("online" if wandb.login(prompt=False, verify=False) else "offline")
    except Exception as error:
        _warn(f"W&B: {_reason(error)}; recording offline")
        return "offline"


def wandb_logger(
    config: WandbConfig, run_dir: str, name: str, tags: tuple[str, ...], cell: str | None = None
) -> FaultTolerantWandbLogger | None:
    """Return the logger of one run, or None when W&B is disabled.

    Args:
        config: The user's settings.
        run_dir: Directory of the run.
        name: Display name of the run.
        tags: Tags in addition to the user's.
        cell: Sweep and cell id of a run of a sweep, with which its W&B id begins; other ids begin with the name.
    """
    mode = wandb_mode(config)
    if mode == "disabled":
        return None
    return FaultTolerantWandbLogger(
        record=lambda: WandbRecord(Path(run_dir), cell or name, agents_id() or config.id),
        name=name,
        save_dir=run_dir,
        mode=mode,
        project=config.project,
        entity=config.entity,
        group=config.group,
        tags=[*tags, *config.tags],
        resume="allow",
        log_model=False,
        settings=_settings(),
    )


def _settings() -> wandb.Settings:
    """Bound the seconds that an unreachable server costs; WANDB_INIT_TIMEOUT and WANDB_FINISH_TIMEOUT override it."""
    bounds = {"init_timeout": 30, "finish_timeout": 60}
    ours = {name: seconds for name, seconds in bounds.items() if f"WANDB_{name.upper()}" not in os.environ}
    return wandb.Settings(silent=True, finish_timeout_raises=True, **ours)


def wandb_loggers(trainer: L.Trainer) -> list[FaultTolerantWandbLogger]:
    """Return the loggers of a Trainer that write to W&B."""
    return [logger for logger in trainer.loggers if isinstance(logger, FaultTolerantWandbLogger)]

"""Weights & Biases, beside the local record and never in the way of the training."""

import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import wandb
from lightning.fabric.loggers.logger import _DummyExperiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from pydantic import ValidationError

from sinkablate.config import WandbConfig
from sinkablate.errors import first_line
from sinkablate.loggers.wandb_record import WandbRecord, agents_id


class FaultTolerantWandbLogger(WandbLogger):
    """A `WandbLogger` that steps aside when the server, the key or the network fails: said once, training goes on.

    Args:
        record: Makes, once the run directory is ready, the record of its W&B run.
        **kwargs: As for `WandbLogger`, less the id.
    """

    def __init__(self, record: Callable[[], WandbRecord], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._wandb_init.pop("anonymous")  # wandb warns of it, even when it is None
        self._make_record = record
        self._record: WandbRecord | None = None
        self.failed = False
        self._opened = False

    @property
    def experiment(self) -> Any:
        """The W&B run, opened by the first `log_hyperparams`.

        Lightning asks for it long before, when the run may still be refused and its directory is not there. When the
        server or the key refuses, an offline run takes its place.
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
            wandb.teardown()  # else the service holds on to the run's id
            self._wandb_init["mode"] = "offline"
            return super().experiment

    def _try(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        if self.failed:
            return
        try:
            call(*args, **kwargs)
        except Exception as error:
            self.failed = True
            _warn(f"W&B stopped ({_reason(error)}); training goes on, the local record is complete")

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Open the run with its configuration; failures contained."""
        self._opened = True
        self._try(self._open, params)

    def _open(self, params: dict[str, Any] | Namespace) -> None:
        self._record = self._make_record()
        self._id = self._wandb_init["id"] = self._record.id
        super().log_hyperparams(params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """As `WandbLogger`, failures contained; what the run was told before it was resumed is not repeated."""
        self._try(self._log, metrics, step)

    def _log(self, metrics: Mapping[str, float], step: int | None) -> None:
        if self._record is None or step is None or self._record.is_new(metrics, step):
            super().log_metrics(metrics, step)

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """As `WandbLogger`, failures contained."""
        self._try(super().log_image, key, images, step, **kwargs)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the run, so that an offline one can be synced as soon as training ends."""
        if self._experiment is not None:
            self._try(self._experiment.finish, exit_code=0 if status == "success" else 1)


@rank_zero_only
@cache
def _say_once(line: str) -> None:
    print(line, flush=True)


@rank_zero_only
def _warn(line: str) -> None:
    """One line; Python's own warnings show their source as a second."""
    print(f"warning: {line}", file=sys.stderr, flush=True)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):  # of a setting that wandb reads from the environment
        first = error.errors()[0]
        return f"WANDB_{'_'.join(map(str, first['loc'])).upper()}: {first['msg']}"
    return first_line(error).rstrip(".")


def sync_command(run_dir: str) -> str:
    """What uploads the offline runs of a directory, as a shell takes it."""
    return f"wandb sync {shlex.quote(run_dir)}/wandb/offline-run-*"


MODES = {
    "online": "online",
    "run": "online",
    "shared": "shared",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
"""Values of WANDB_MODE."""


def wandb_mode(config: WandbConfig) -> str:
    """online, offline or disabled; `auto` is online where a key is set. WANDB_MODE, as everywhere, has its say.

    What is wrong in the environment is said in one line: with a key that cannot be one the run is recorded offline,
    with a setting that wandb refuses, without W&B.
    """
    for name in [name for name, value in os.environ.items() if name.startswith("WANDB_") and not value.strip()]:
        del os.environ[name]  # empty means unset; wandb would refuse it
    mode: str | None = config.mode
    if mode == "auto":
        off = os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes", "on")
        mode = "disabled" if off else MODES.get(os.environ.get("WANDB_MODE", ""))
    if mode == "disabled":
        return mode
    try:
        wandb.setup(wandb.Settings(silent=True))  # else a login asks the server for the account's name, to print it
    except Exception as error:
        _warn(f"W&B: {_reason(error)}; training goes on without it, the local record is complete")
        return "disabled"
    try:
        return mode or ("online" if wandb.login(prompt=False, verify=False) else "offline")
    except Exception as error:
        _warn(f"W&B: {_reason(error)}; recording offline")
        return "offline"


def wandb_logger(
    config: WandbConfig, run_dir: str, name: str, tags: tuple[str, ...], cell: str | None = None
) -> FaultTolerantWandbLogger | None:
    """The logger of one run, or None when W&B is disabled.

    Args:
        config: Keys of the user.
        run_dir: Directory of the run.
        name: What the run is called.
        tags: Tags next to those of the user.
        cell: Sweep and id of the cell that the run is; its W&B id begins with it, others with the name.
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
    """Bounds on the seconds a lost server costs; WANDB_INIT_TIMEOUT and WANDB_FINISH_TIMEOUT have their say."""
    bounds = {"init_timeout": 30, "finish_timeout": 60}
    ours = {name: seconds for name, seconds in bounds.items() if f"WANDB_{name.upper()}" not in os.environ}
    return wandb.Settings(silent=True, finish_timeout_raises=True, **ours)

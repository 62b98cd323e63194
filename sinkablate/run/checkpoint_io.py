"""Writes checkpoints in the background, completely or not at all, and keeps the previous one.

checkpoints/<name>.ckpt    named by ModelCheckpoint; `stopped.ckpt` if a signal ended the run
checkpoints/last.ckpt      a link to the latest checkpoint
checkpoints/previous.ckpt  the one before, in case the latest is damaged
checkpoints/final.ckpt     the final weights, if no checkpoint was due at the last step
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins import CheckpointIO, TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from sinkablate.errors import UserError, first_line
from sinkablate.files.writing import replacing
from sinkablate.process.background import Background
from sinkablate.run.directory import LAST, NONFINITE
from sinkablate.run.staging import Staging

PREVIOUS = "previous.ckpt"
OnFailure = Literal["stop", "continue"]


def wait_for_checkpoint(checkpoint_io: CheckpointIO) -> None:
    """Wait until a checkpoint that is being written in the background is complete."""
    if isinstance(checkpoint_io, AtomicCheckpointIO):
        checkpoint_io.wait()


class AtomicCheckpointIO(TorchCheckpointIO):
    """Copies the state and writes it in a thread, to a temporary file in the same folder that is synced and renamed.

    Training continues while the state is copied from a GPU (`Staging`) and while it is written. A write waits for the
    previous one, so that at most one copy of the state exists.

    Args:
        on_failure: A checkpoint that cannot be written, for example to a full disk, stops the run or causes a warning.
            Earlier checkpoints stay intact in both cases.
        staging: Copies the state; by default, into pinned memory if it is on a GPU.
    """

    def __init__(self, on_failure: OnFailure = "stop", staging: Staging | None = None) -> None:
        self.on_failure = on_failure
        self.writer = Background("checkpoint")
        self._failed = False
        self._staging = staging or Staging()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Start writing a checkpoint; the state may change as soon as this returns.

        Raises:
            UserError: An earlier checkpoint could not be written.
        """
        self.wait()
        copied, wait_for_copy = self._staging.copy(checkpoint)
        self.writer.submit(lambda: self._write(copied, wait_for_copy, Path(path)))

    def remove_checkpoint(self, path: Any) -> None:
        """Rename a checkpoint to `previous.ckpt` instead of deleting it, after all pending writes."""
        self.writer.submit(lambda: self._retire(Path(path)))

    def wait(self) -> None:
        """Wait until all checkpoints are written.

        Raises:
            UserError: A checkpoint could not be written.
        """
        self.writer.wait()

    def teardown(self) -> None:
        """Finish pending writes."""
        self.wait()

    def _write(self, checkpoint: dict[str, Any], wait_for_copy: Callable[[], None], path: Path) -> None:
        try:
            wait_for_copy()
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path, fsync=True) as partial, partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
            if path.name not in (LAST, NONFINITE):
                with replacing(path.parent / LAST) as link:
                    link.symlink_to(path.name)
            self._failed = False
        except (OSError, RuntimeError) as error:  # torch's writer turns an OSError into a RuntimeError
            self._failed = True
            reason = f"checkpoint {path} cannot be written ({_reason(error)}); earlier checkpoints are intact"
            if self.on_failure == "stop":
                raise UserError(
                    f"{reason}; to keep training without it, set --on_checkpoint_failure continue"
                ) from None
            rank_zero_warn(f"{reason}; training continues")

    def _retire(self, path: Path) -> None:
        if path.exists() and not self._failed:  # after a failed write it is the latest checkpoint
            os.replace(path, path.with_name(PREVIOUS))


def _reason(error: Exception) -> str:
    cause = error if isinstance(error, OSError) else error.__context__
    return (cause.strerror if isinstance(cause, OSError) else None) or first_line(error)

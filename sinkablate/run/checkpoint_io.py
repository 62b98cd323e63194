"""Checkpoints on disk: written beside the training, whole or not at all, the one before kept.

checkpoints/<name>.ckpt    as ModelCheckpoint names it; `stopped.ckpt` when a signal ended the run
checkpoints/last.ckpt      a link to the latest of them
checkpoints/previous.ckpt  the one before, in case the latest is damaged
checkpoints/final.ckpt     the final weights, where the last step was not due for a checkpoint
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from sinkablate.errors import UserError, first_line
from sinkablate.files.writing import replacing
from sinkablate.run.directory import LAST, NONFINITE

PREVIOUS = "previous.ckpt"
OnFailure = Literal["stop", "continue"]


class Checkpoints(TorchCheckpointIO):
    """Copies the state, and lets a thread write it: a temporary file in the same folder, synced, then renamed.

    Writes are done one after the other; the next one waits for the one before, so that at most one copy exists.

    Args:
        on_failure: A checkpoint that cannot be written (a full disk) stops the run, or is reported and passed over.
            The ones before are intact either way.
    """

    def __init__(self, on_failure: OnFailure = "stop") -> None:
        self.on_failure = on_failure
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: list[Future[None]] = []
        self._failed = False

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Begin to write a checkpoint; the state may change as soon as this returns.

        Raises:
            UserError: An earlier one could not be written.
        """
        self.wait()
        copied = apply_to_collection(checkpoint, Tensor, _copy)
        self._do(lambda: self._write(copied, Path(path)))

    def remove_checkpoint(self, path: Any) -> None:
        """Let a checkpoint go once what was begun before is written: it becomes the previous one."""
        self._do(lambda: self._retire(Path(path)))

    def wait(self) -> None:
        """Return when everything is written.

        Raises:
            UserError: Something could not be.
        """
        pending, self._pending = self._pending, []
        for future in pending:
            future.result()

    def teardown(self) -> None:
        """Finish what was begun."""
        self.wait()

    def _do(self, what: Callable[[], None]) -> None:
        self._pending.append(self._writer.submit(what))

    def _write(self, checkpoint: dict[str, Any], path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path, fsync=True) as partial, partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
            if path.name not in (LAST, NONFINITE):
                with replacing(path.parent / LAST) as link:
                    link.symlink_to(path.name)
            self._failed = False
        except (OSError, RuntimeError) as error:  # torch's writer turns one into the other
            self._failed = True
            reason = f"checkpoint {path} cannot be written ({_reason(error)}); those before are intact"
            if self.on_failure == "stop":
                raise UserError(f"{reason}; --on_checkpoint_failure continue goes on without") from None
            rank_zero_warn(f"{reason}, training goes on")

    def _retire(self, path: Path) -> None:
        if path.exists() and not self._failed:  # after a failure it is the latest there is
            os.replace(path, path.with_name(PREVIOUS))


def _copy(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor.clone() if tensor.device.type == "cpu" else tensor.cpu()


def _reason(error: Exception) -> str:
    cause = error if isinstance(error, OSError) else error.__context__
    return (cause.strerror if isinstance(cause, OSError) else None) or first_line(error)

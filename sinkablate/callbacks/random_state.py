"""Keep the global random state in checkpoints, so that dropout and drop-path continue exactly."""

from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn

from sinkablate.diagnostics.random_state import random_state, restore_random_state
from sinkablate.distributed.gather import gather


class RandomState(L.Callback):
    """Save the global generators of Python, NumPy and PyTorch, and restore them when a resumed training starts.

    Data order, augmentation and mixing do not need them: they are functions of seed, epoch and sample. Each rank has
    its own generators, and a checkpoint holds those of all ranks.
    """

    def __init__(self) -> None:
        self._loaded: list[dict[str, Any]] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all ranks, in types that a weights-only load accepts."""
        return {"ranks": gather(random_state())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training starts, because code in between may draw random numbers."""
        self._loaded = state_dict["ranks"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the state of this rank."""
        if self._loaded is None:
            return
        ranks, self._loaded = self._loaded, None
        if len(ranks) == trainer.world_size:
            restore_random_state(ranks[trainer.global_rank])
        else:
            rank_zero_warn(
                f"the checkpoint was written by {len(ranks)} ranks, but this run has {trainer.world_size}: batches "
                "come in the same order, but dropout and drop-path masks will differ"
            )

"""Keep the global random state in checkpoints, so that dropout and drop-path continue exactly."""

import random
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn

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
        return {"ranks": gather(_state())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until the training starts, because code in between may draw random numbers."""
        self._loaded = state_dict["ranks"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the state of this rank."""
        if self._loaded is None:
            return
        ranks, self._loaded = self._loaded, None
        if len(ranks) == trainer.world_size:
            _restore(ranks[trainer.global_rank])
        else:
            rank_zero_warn(
                f"the checkpoint was written by {len(ranks)} ranks, this run has {trainer.world_size}: the order of "
                "the batches stays the same, but dropout and drop-path are drawn again"
            )


def _state() -> dict[str, Any]:
    _, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "torch": torch.get_rng_state(),
        "numpy": ("MT19937", torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def _restore(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"]:
        torch.cuda.set_rng_state_all([x.cpu() for x in state["cuda"]])

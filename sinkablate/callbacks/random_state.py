"""The global random state travels with the checkpoint: dropout and drop-path go on where they were."""

import random
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn

from sinkablate.distributed.gather import gather


class RandomState(L.Callback):
    """Stores python's, numpy's and torch's global generators and puts them back when a resumed training begins.

    Data order, augmentation and mixing do not need it: they are functions of seed, epoch and sample. Each process
    draws from generators of its own, and a checkpoint holds those of all.
    """

    def __init__(self) -> None:
        self._loaded: list[dict[str, Any]] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The states of all ranks, in types that a weights-only load accepts."""
        return {"ranks": gather(_state())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep them until training begins: what happens in between may draw."""
        self._loaded = state_dict["ranks"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put this rank's state back."""
        if self._loaded is None:
            return
        ranks, self._loaded = self._loaded, None
        if len(ranks) == trainer.world_size:
            _restore(ranks[trainer.global_rank])
        else:
            rank_zero_warn(
                f"the checkpoint is of {len(ranks)} processes, not {trainer.world_size}: batches go on as "
                "they were, dropout and drop-path are drawn anew"
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

"""The global random state travels with the checkpoint: dropout and drop-path go on where they were."""

import random
from typing import Any

import lightning as L
import numpy as np
import torch


class RandomState(L.Callback):
    """Stores python's, numpy's and torch's global generators and puts them back when a resumed training begins.

    Data order, augmentation and mixing do not need it: they are functions of seed, epoch and sample. Each process
    draws from generators of its own; a checkpoint holds those of rank 0, and the others start as they would afresh.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The state, in types that a weights-only load accepts."""
        _, keys, *rest = np.random.get_state(legacy=True)
        return {"python": random.getstate(), "torch": torch.get_rng_state(),
                "numpy": ("MT19937", torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
                "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep it until training begins: what happens in between may draw."""
        self._loaded = state_dict

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the state back."""
        if self._loaded is None or not trainer.is_global_zero:
            return
        state, self._loaded = self._loaded, None
        random.setstate(state["python"])
        name, keys, *rest = state["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
        torch.set_rng_state(state["torch"].cpu())
        if state["cuda"]:
            torch.cuda.set_rng_state_all([x.cpu() for x in state["cuda"]])

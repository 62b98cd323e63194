"""Measure how much a gate, registers or other mechanisms change a pretrained model before it is trained."""

import sys
from typing import Any

import lightning as L

from sinkablate.vit.additions import additions_of
from sinkablate.vit.anatomy import backbone_of
from sinkablate.vit.drift import NOTICEABLE, STATE_KEY, drift, drift_sentence

IMAGES = 8
"""Number of validation images."""


class StartDrift(L.Callback):
    """Print and keep the relative change of the final tokens at step 0, on probe images of the validation set.

    It is measured on the CPU, before the model is sharded or moved, and only if mechanisms were added to pretrained
    weights. Checkpoints hold the numbers, so a resumed run and a diagnosis of the run have them too.

    Args:
        resumes: True when the run continues from a checkpoint.
    """

    def __init__(self, *, resumes: bool) -> None:
        self.resumes = resumes
        self.drift: dict[str, Any] = {}
        """The change of all tokens (`tokens`), of `cls` and of `patches`, what was `added`, and the number of `images`;
        empty if nothing was added."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Measure the change."""
        backbone = backbone_of(pl_module)
        additions = None if backbone is None else additions_of(backbone)
        if stage != "fit" or self.resumes or additions is None or not additions.names or not trainer.is_global_zero:
            return
        assert backbone is not None
        images = trainer.datamodule.probe_images(IMAGES).images  # type: ignore[attr-defined]
        numbers = drift(backbone, additions.unchanged(), images)
        self.drift = {"added": list(additions.names), "images": len(images), **numbers}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the change, now that the run can no longer be refused; to stderr if it is a warning."""
        if self.drift and not self.resumes and trainer.is_global_zero:
            noticeable = self.drift["tokens"] > NOTICEABLE
            print(drift_sentence(self.drift), file=sys.stderr if noticeable else sys.stdout, flush=True)

    @property
    def state_key(self) -> str:
        """Key of the numbers in a checkpoint, under which `diagnose` reads them."""
        return STATE_KEY

    def state_dict(self) -> dict[str, Any]:
        """Return the numbers; nothing is stored if nothing was added."""
        return self.drift

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the numbers."""
        self.drift = state_dict

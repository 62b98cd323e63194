"""The model of a run, and what the run says about it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sinkablate.config import BackboneConfig, ImageConfig, build, height_and_width
from sinkablate.config.checks import with_tuples
from sinkablate.diagnose.from_run import load_from_run
from sinkablate.diagnose.model import require_finite, without_weights
from sinkablate.errors import UserError
from sinkablate.run.checkpoints import check_checkpoint
from sinkablate.run.directory import CONFIG, DONE, diverged, last_checkpoint
from sinkablate.run.evaluations import evaluation_numbers
from sinkablate.run.reading import read_json, read_yaml
from sinkablate.vit.checkpoint_files import AVERAGED
from sinkablate.vit.hub_folder import HUB, LOCAL, ExportedModel
from sinkablate.vit.portable import portable

LOCAL_FILE, LOCAL_FOLDER = "a local file", "a local folder"
"""What a model card calls a file or a folder of weights, whose path is not published."""


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """The model of a run, and what a model card says about it."""

    model: nn.Module
    """The last weights of the run, in eval mode and fp32."""
    description: ExportedModel
    """The variant, its input and output, and the preprocessing."""
    inexpressible: tuple[str, ...] = ()
    """Arguments of timm that the variant cannot hold, if the model was created from a folder of timm."""
    variant: str
    """Name of the variant."""
    step: int
    """Number of optimizer steps of the weights."""
    averaged: bool
    """Whether these are the averaged weights of the run (`model.ema`)."""
    state: str
    """`finished`, `diverged` or `unfinished`."""
    initial: str
    """Where the weights came from when the training started; empty if they were drawn at random."""
    classes: tuple[str, ...]
    """Names of the classes in the order of the logits; empty if the run does not know them."""
    config: dict[str, Any]
    """The configuration of the run, nested."""
    summary: dict[str, Any]
    """The content of `summary.json`; empty before the run has finished."""
    evaluation: dict[str, float | str | None]
    """The numbers of the evaluation in the directory of the run; empty without one."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of an image."""
        return self.description.in_chans, *height_and_width(self.description.img_size)


def read_run(run: str, *, averaged: bool = True) -> TrainedModel:
    """Load the last checkpoint of a run for export.

    Args:
        run: Directory of the run.
        averaged: Load the averaged weights if the run has any.

    Raises:
        UserError: The directory holds no run, its model reads no images, or its weights are damaged or not finite.
    """
    loaded = load_from_run(run, trust=True)  # no images are read, so nothing in the configuration is executed
    if loaded.toy is not None:
        raise UserError(f"run={run}: a toy reads synthetic sequences, not images, and cannot be exported")
    directory = Path(run)
    checkpoint = check_checkpoint(last_checkpoint(directory))
    saved, stored = checkpoint["hyper_parameters"], read_yaml(directory / CONFIG)
    average = _averaged_weights(checkpoint["state_dict"]) if averaged else {}
    if average:
        loaded.model.load_state_dict(average)
        require_finite(loaded.model, f"run={run}: the averaged weights")
    backbone: BackboneConfig = build(BackboneConfig, with_tuples(saved["backbone"]))
    named = portable(backbone)
    return TrainedModel(
        model=loaded.model,
        description=ExportedModel(
            backbone=replace(
                without_weights(named.backbone),
                grad_checkpointing=False,
                attention=replace(named.backbone.attention, kernel="auto"),
            ),
            image=build(ImageConfig, with_tuples(stored["data"]["image"])),
            **{name: saved[name] for name in ("num_classes", "in_chans", "img_size")},
        ),
        inexpressible=named.inexpressible,
        variant=str(stored["variant"]),
        step=int(checkpoint["global_step"]),
        averaged=bool(average),
        state="finished" if (directory / DONE).exists() else "diverged" if diverged(directory) else "unfinished",
        initial=_initial_weights(backbone, stored["model"]["backbone"]["name"]),
        classes=tuple(checkpoint.get("ImageData", {}).get("classes", ())),
        config=stored,
        summary=read_json(directory / "summary.json") or {},
        evaluation=evaluation_numbers(directory),
    )


def _averaged_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the averaged weights in the state dict of a task; empty without an average."""
    prefix = f"{AVERAGED}."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _initial_weights(backbone: BackboneConfig, name: str) -> str:
    """Name the weights from which the training started, without the path of a file.

    Args:
        backbone: The variant.
        name: The name of the model in the configuration of the run.
    """
    if backbone.checkpoint:
        return LOCAL_FILE
    if name.startswith(f"{LOCAL}:"):
        return LOCAL_FOLDER if backbone.pretrained else ""
    return name.removeprefix(f"{HUB}:") if backbone.pretrained else ""

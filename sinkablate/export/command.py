"""The command `export`: from the directory of a run to a model folder."""

import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from sinkablate.errors import UserError
from sinkablate.export.hub_format import read_hub, write_hub
from sinkablate.export.model_card import MARK, model_card
from sinkablate.export.timm_format import read_timm, write_timm
from sinkablate.export.trained import TrainedModel, read_run
from sinkablate.export.upload import require_login, upload
from sinkablate.files.ownership import refuse_foreign
from sinkablate.files.writing import naming, temporary_sibling, write_text
from sinkablate.run.directory import require_writable
from sinkablate.vit.hub_folder import CONFIG, WEIGHTS

CARD = "README.md"
FILES = (WEIGHTS, CARD, CONFIG)
"""What an export writes; the configuration comes last, because it makes the folder a model."""
LARGEST_DIFFERENCE = 1e-5
"""Largest difference, relative to the largest output, of a reloaded model from the original in float64: the sum of a
token and its position, which timm's gated model stores as one parameter, has been rounded to float32."""


@dataclass(frozen=True)
class Format:
    """One format of a model folder."""

    write: Callable[[TrainedModel, Path], None]
    """Writes weights and configuration into a folder."""
    read: Callable[[Path], nn.Module]
    """Loads the model in a folder as its users do."""
    call: str
    """The Python expression that loads a folder."""


FORMATS = {
    "timm": Format(write_timm, read_timm, 'timm.create_model("local-dir:{}", pretrained=True)'),
    "hub": Format(write_hub, read_hub, 'sinkablate.create_model("local-dir:{}")'),
}


def export(
    *,
    run: str,
    out: str,
    format: Literal["timm", "hub"] = "hub",
    averaged: bool = True,
    push_to_hub: str | None = None,
    private: bool = False,
    overwrite: bool = False,
) -> None:
    """Write the trained model of a run as a folder for others: weights, configuration and a model card.

    Writes model.safetensors, config.json and README.md. The folder is loaded again before it is put in place, and its
    output compared with that of the run's model.

    Args:
        run: Directory of the run; the last checkpoint is exported.
        out: Folder to write.
        format: timm: a folder that timm alone loads, for softmax attention with or without registers and output gates;
            hub: any variant, loaded by sinkablate.create_model or with --backbone.name local-dir:FOLDER.
        averaged: Export the averaged weights if the run has any (model.ema).
        push_to_hub: Name of a repository on the Hugging Face hub, USER/NAME, to upload the folder to; nothing is
            uploaded otherwise. Requires a login: `hf auth login`.
        private: If the repository does not exist, create it as a private one.
        overwrite: Replace an earlier export.

    Raises:
        UserError: The run cannot be read, the format cannot express its model, or the folder cannot be written.
    """
    if not out:
        raise UserError("out is empty; name a folder for the model")
    if private and push_to_hub is None:
        raise UserError("private=true has no effect without push_to_hub")
    folder, chosen = Path(out), FORMATS[format]
    _require_free(folder, overwrite=overwrite)
    if push_to_hub is not None:
        require_login(push_to_hub)
    trained = read_run(run, averaged=averaged)
    with naming(folder), temporary_sibling(_first_missing(folder)) as partial:
        partial.mkdir()
        chosen.write(trained, partial)
        write_text(partial / CARD, model_card(trained, format, push_to_hub))
        # safetensors writes files that only their owner can read
        (partial / WEIGHTS).chmod((partial / CARD).stat().st_mode)
        difference = _difference(trained, chosen.read(partial))
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            os.replace(partial / name, folder / name)
    weights = "averaged weights" if trained.averaged else "weights"
    print(
        f"model: {trained.variant} ({trained.description.backbone.name}), {weights} of step {trained.step}\n"
        f"load it with: {chosen.call.format(folder)}\n"
        f"checked: after reloading, the output differs by {difference:.0e} of its largest value (float64)\n"
        f"folder: {folder}",
        flush=True,
    )
    if push_to_hub is not None:
        print(f"uploaded: {upload(folder, list(FILES), push_to_hub, private=private)}")


def _require_free(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that cannot be written, that contains other files of these names, or an export to be kept."""
    require_writable(folder, "out")
    card = folder / CARD
    if not (card.is_file() and MARK in card.read_text(encoding="utf-8", errors="replace")):
        refuse_foreign(folder, FILES, key="out", what="an earlier export")
    elif not overwrite:
        raise UserError(
            f"out={folder}: contains an earlier export; choose another --out, or replace it with --overwrite"
        )


def _first_missing(folder: Path) -> Path:
    """Return the highest folder that has to be created, or the folder itself if it exists.

    A temporary folder next to it leaves nothing behind when the export fails.
    """
    return next((path for path in reversed([folder, *folder.parents]) if not path.exists()), folder)


@torch.no_grad()
def _difference(trained: TrainedModel, reloaded: nn.Module) -> float:
    """Return the largest difference of a reloaded model's output from the original, relative to the largest output.

    Both run in float64 on the same random image, so that a difference means that they compute different functions.

    Raises:
        UserError: They compute different functions.
    """
    image = torch.randn(1, *trained.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected, output = (deepcopy(model).double().eval()(image) for model in (trained.model, reloaded))
    difference = float((output - expected).abs().max() / expected.abs().max())
    if not difference <= LARGEST_DIFFERENCE:
        raise UserError(
            f"the exported model computes another function (its output differs by {difference:.1e} of the largest "
            "value); nothing was written. Please report this, with the config.yaml of the run"
        )
    return difference

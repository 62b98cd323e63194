"""The folder of a model of transformers: a local one or one from the hub, and checks of its content."""

import json
import re
from collections.abc import Collection
from pathlib import Path

from huggingface_hub import snapshot_download
from torch import nn

from sinkablate.errors import UserError, first_line, listed
from sinkablate.vit.hub_errors import hub_problem

FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
"""Configuration, preprocessing, tokenizer and weights; a repository without safetensors has weights in .bin files."""
MEASURED_WEIGHTS = re.compile(r"\.\d+\.|embed")
"""Part of the names of weights in blocks and embeddings."""
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def local_folder(location: str) -> str:
    """Return the folder of a model: a local one as it is, or the files of `USER/NAME[@REVISION]` in the hub's cache.

    Raises:
        UserError: There is no such folder or file, and the repository cannot be read.
    """
    if not location:
        raise UserError("hf= is empty; name a local folder, a config.json, or USER/NAME on the hub")
    if Path(location).exists():
        return location
    if not REPOSITORY.fullmatch(location):
        raise UserError(
            f"hf={location}: no such file or folder; name a local folder, a config.json, or USER/NAME on the hub"
        )
    repository, _, revision = location.partition("@")
    try:
        folder = snapshot_download(repository, revision=revision or None, allow_patterns=list(FILES))
        if not any(Path(folder).glob("*.safetensors")):
            folder = snapshot_download(repository, revision=revision or None, allow_patterns=[*FILES, "*.bin"])
    except Exception as error:  # huggingface_hub and its transport raise errors of many kinds
        problem = hub_problem(error) or first_line(error)
        raise UserError(f"hf={location}: no such file or folder, and as a name on the hub: {problem}") from None
    return folder


def refuse_folder_of_timm(location: str) -> None:
    """Refuse a folder of timm, or one that `export` wrote.

    Raises:
        UserError: Its config.json names an architecture of timm; the message names the option that reads it.
    """
    path = Path(location)
    file = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(file.read_bytes())
    except (OSError, ValueError):  # the error of transformers describes it
        return
    if isinstance(config, dict) and "architecture" in config and "model_type" not in config:
        raise UserError(f"hf={location}: a model of timm or of `export`; use --backbone.name local-dir:{file.parent}")


def require_all_weights(location: str, model: nn.Module, missing: Collection[str]) -> None:
    """Refuse a folder that lacks weights of the blocks or the embedding, which transformers would draw at random.

    Weights of a pooler and of masked tokens are often missing, and do not change what is measured.

    Raises:
        UserError: Some are missing.
    """
    names = sorted(name for name in missing if MEASURED_WEIGHTS.search(name) and "mask_token" not in name)
    if names:
        raise UserError(
            f"hf={location}: lacks {len(names)} of the weights of {type(model).__name__}: "
            f"{listed(names, 3)}; download it again, or name its config.json for random weights"
        )

"""Models of transformers on the Hugging Face hub, as folders on this machine."""

import re
from pathlib import Path

from huggingface_hub import snapshot_download

from sinkablate.errors import UserError, first_line
from sinkablate.vit.hub_errors import hub_problem

FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
"""Configuration, preprocessing, tokenizer and weights; a repository without safetensors has weights in .bin files."""
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def local_folder(location: str) -> str:
    """Return the folder of a model: a local one as it is, or the files of `USER/NAME[@REVISION]` in the hub's cache.

    Raises:
        UserError: There is no such folder or file, and the repository cannot be read.
    """
    if not location or Path(location).exists():
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

"""What a model's name stands for: a timm architecture, the configuration of its weights, and arguments."""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import timm
from timm.models import parse_model_name, resolve_model_input_args

from sinkablate.config import ConfigError
from sinkablate.errors import first_line
from sinkablate.files.suggestions import did_you_mean
from sinkablate.vit.hub_errors import hub_problem
from sinkablate.vit.hub_folder import CONFIG, HUB, LOCAL


class NamedModel(NamedTuple):
    """The model that a name stands for."""

    architecture: str
    """timm's name of the architecture, without a tag."""
    cfg: dict[str, Any]
    """timm's configuration of the weights: input size, normalization, number of classes, where they are."""
    arguments: dict[str, Any]
    """Arguments of the architecture that a folder or a repository stores, such as a depth."""


def named_model(name: str) -> NamedModel:
    """Return the model that a name stands for: timm's own, `hf-hub:USER/NAME` or `local-dir:FOLDER`.

    Raises:
        ConfigError: There is no such model, weights with this tag, folder or repository, or the hub cannot be reached.
    """
    try:
        source, location = parse_model_name(name)
    except ValueError:
        if name in (f"{HUB}:", f"{LOCAL}:"):
            raise ConfigError(f"name={name} names nothing; write hf-hub:USER/NAME or local-dir:FOLDER") from None
        remedy = f"hf-hub:{name} for a repository on the Hugging Face hub, or local-dir:{name} for a local folder"
        raise ConfigError(f"name={name}: not a name of timm; use {remedy}") from None
    if source == HUB:
        return _on_hub(name)
    if source == LOCAL:
        config = Path(location) / CONFIG
        if not config.is_file():
            raise ConfigError(f"name={name}: there is no {config}; name a folder that timm saved")
    elif not timm.is_model(name.partition(".")[0]):
        similar = did_you_mean(name.partition(".")[0], timm.list_models(), most=3, beginnings=True)
        hint = f"; for the folder of this name, use local-dir:{name}" if Path(name).is_dir() else similar
        raise ConfigError(f"name={name}: timm has no such model{hint}")
    return _read(name)


@cache
def _on_hub(name: str) -> NamedModel:
    """Read the configuration of a repository on the hub, or in the cache, once per process."""
    return _read(name)


def _read(name: str) -> NamedModel:
    try:
        arguments = resolve_model_input_args(name)
    except Exception as error:  # timm, huggingface_hub and its transport raise errors of many kinds
        raise ConfigError(f"name={name}: {hub_problem(error) or _problem(name, error)}") from error
    return NamedModel(arguments.pop("model_name"), arguments.pop("pretrained_cfg"), arguments)


def _problem(name: str, error: Exception) -> str:
    """Describe why timm did not find a model's configuration."""
    if isinstance(error, KeyError):
        return f"its config.json is not in timm's format: the key {first_line(error)} is missing"
    architecture, _, tag = name.partition(".")
    if timm.is_model(architecture):
        tags = ", ".join(x.partition(".")[2] for x in timm.list_pretrained(f"{architecture}.*")) or "none"
        return f"{architecture} has no weights tagged {tag}; its tags: {tags}"
    return first_line(error)

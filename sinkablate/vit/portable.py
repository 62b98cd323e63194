"""The configuration of a model that was created from a folder or a repository, without a reference to it."""

from dataclasses import replace
from typing import Any, NamedTuple

from sinkablate.config import BackboneConfig
from sinkablate.vit.hub_folder import names_location
from sinkablate.vit.model_names import named_model
from sinkablate.vit.timm_models import RATES, SHAPE

STORED_ELSEWHERE = ("img_size", "num_classes", "in_chans", "pretrained_model_args", *RATES)
"""Arguments of timm that a run stores itself, and timm's copy of all arguments."""


class Portable(NamedTuple):
    """The configuration of a model under the name of timm's architecture."""

    backbone: BackboneConfig
    inexpressible: tuple[str, ...]
    """Arguments of timm that the configuration cannot hold; usually none."""


def portable(config: BackboneConfig) -> Portable:
    """Replace the name of a folder or a repository by timm's architecture with the arguments that are stored there.

    Args:
        config: The configuration of a run; its own values are kept. Other names are returned as they are.

    Raises:
        ConfigError: The folder or the repository is no longer available.
    """
    if not names_location(config.name):
        return Portable(config, ())
    named = named_model(config.name)
    arguments = {name: value for name, value in named.arguments.items() if name not in STORED_ELSEWHERE}
    values: dict[str, Any] = {name: arguments.pop(name) for name in SHAPE if name in arguments}
    if arguments.get("reg_tokens"):
        values["registers"] = arguments.pop("reg_tokens")
        values["register_pos_embed"] = not arguments.pop("no_embed_class", False)
    elif not arguments.get("no_embed_class"):
        arguments.pop("no_embed_class", None)
    kept = {name: value for name, value in values.items() if getattr(config, name) in (None, False)}
    return Portable(replace(config, name=named.architecture, **kept), tuple(sorted(arguments)))


def stored_backbone(config: BackboneConfig) -> BackboneConfig:
    """Return the configuration under which a run stores its model, so that it can be measured without the folder.

    The name of a folder or a repository is kept only if the configuration cannot hold all arguments stored there.
    """
    backbone, lost = portable(config)
    return config if lost else backbone

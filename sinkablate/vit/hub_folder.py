"""Model folders and repositories that `export --format hub` wrote: reading them back.

FOLDER/config.json         under the key `sinkablate`: the variant, its input and output, and the preprocessing
FOLDER/model.safetensors   the weights, with `sinkablate` in the metadata of the file
"""

import json
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError
from safetensors import SafetensorError, safe_open

from sinkablate import __version__
from sinkablate.config import BackboneConfig, ConfigError, ImageConfig, ImageSize, build
from sinkablate.config.checks import leaves, with_tuples
from sinkablate.config.image_size import require_size
from sinkablate.config.types import require_types

CONFIG, WEIGHTS = "config.json", "model.safetensors"
"""Files of a model folder."""
KEY = "sinkablate"
"""The key of `config.json` with the description of the model; also the mark in the metadata of its weights."""
LOCAL, HUB = "local-dir", "hf-hub"
"""What a backbone name starts with if it refers to a folder or to a repository, as in timm."""
ADJUSTABLE = (
    "name",
    "pretrained",
    "checkpoint",
    "checkpoint_key",
    "img_size",
    "pos_embed_interpolation",
    "grad_checkpointing",
    "drop_path_rate",
    "drop_rate",
    "proj_drop_rate",
    "attn_drop_rate",
)
"""Keys of `BackboneConfig` that may differ from those of the exported model, whose tensors other keys would change."""


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """A model that `export --format hub` wrote."""

    backbone: BackboneConfig
    """The variant; its `checkpoint` is the file with the weights."""
    num_classes: int
    """Number of classes; 0 for a model without a classifier."""
    in_chans: int
    """Number of input channels."""
    img_size: ImageSize
    """Size of the input."""
    image: ImageConfig
    """The preprocessing of the model's images."""


def description(model: ExportedModel) -> dict[str, Any]:
    """Return what `config.json` contains under `KEY`, as plain values."""
    content = asdict(model) | {"version": __version__}
    for source in ("pretrained", "checkpoint", "checkpoint_key"):
        del content["backbone"][source]
    return content


def exported_model(name: str) -> ExportedModel | None:
    """Return the exported model that a backbone name refers to; None for every other name.

    Args:
        name: A backbone name. Only `local-dir:FOLDER` and `hf-hub:USER/NAME[@REVISION]` can refer to an exported model.
            timm's own folders and repositories, and those that cannot be reached, are left to timm's loader.

    Raises:
        ConfigError: The description is damaged or was written by a later version, or the weights are missing.
    """
    config = _file_of(name, CONFIG)
    if config is None:
        return None
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or KEY not in content:
        return None
    weights = _file_of(name, WEIGHTS)
    if weights is None:
        raise ConfigError(f"name={name}: contains no {WEIGHTS}; export the run again")
    return _read(content[KEY], f"name={name}: {CONFIG}", weights)


def names_location(name: str) -> bool:
    """Return whether a backbone name is the location of a model: a folder, or a repository on the hub."""
    return name.partition(":")[0] in (LOCAL, HUB)


def _file_of(name: str, file: str) -> Path | None:
    """Return the path of a file in the folder or repository that a name refers to; None if there is none."""
    source, _, location = name.partition(":")
    if source == LOCAL:
        path = Path(location) / file
        return path if path.is_file() else None
    if source != HUB:
        return None
    repository, _, revision = location.partition("@")
    try:
        return Path(hf_hub_download(repository, file, revision=revision or None))
    except (EntryNotFoundError, HFValidationError, OSError):
        return None


def _read(content: Any, where: str, weights: Path) -> ExportedModel:
    """Build the description of a model from the plain values of `config.json`.

    Args:
        content: The values.
        where: Name of the file, with which messages start.
        weights: The file with the weights.
    """
    try:
        values = dict(with_tuples(content))
        writer = values.pop("version")
        values["backbone"] |= {"checkpoint": str(weights)}
        model: ExportedModel = build(ExportedModel, values)
        for part in (model, model.backbone, model.backbone.attention, model.backbone.pathway, model.image):
            require_types(part)
    except ConfigError as error:
        raise ConfigError(f"{where}: {KEY}.{error}") from None
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ConfigError(f"{where}: damaged, or not written by export ({type(error).__name__}: {error})") from None
    unknown = {key for key, _ in leaves(content)} - {key for key, _ in leaves(description(model))}
    if unknown:
        raise ConfigError(
            f"{where}: {min(unknown)} is unknown to this version, {__version__}; the model was exported by {writer}"
        )
    return model


def resolved(config: BackboneConfig) -> BackboneConfig:
    """Return the configuration of the variant itself where a backbone names an exported model.

    Apart from the file with the weights, the result does not depend on the folder, so it can be stored with a run.
    Every other configuration is returned as it is.

    Args:
        config: A configuration; its keys in `ADJUSTABLE` and `attention.kernel` are kept. `pretrained` loads the
            exported weights.

    Raises:
        ConfigError: Another key differs from its default and from the exported model, whose tensors are fixed.
    """
    exported = exported_model(config.name)
    if exported is None:
        return config
    kernel = config.attention.kernel
    config = replace(config, attention=replace(config.attention, kernel="auto"))
    for field in fields(BackboneConfig):
        value = getattr(config, field.name)
        if field.name not in ADJUSTABLE and value not in (field.default, getattr(exported.backbone, field.name)):
            raise ConfigError(
                f"{field.name}={_shown(value)}: {config.name} is exported with its own variant, which cannot be "
                "changed; leave the key out"
            )
    kept = {name: getattr(config, name) for name in ADJUSTABLE if name not in ("name", "pretrained", "checkpoint")}
    weights = config.checkpoint or (exported.backbone.checkpoint if config.pretrained else None)
    attention = replace(exported.backbone.attention, kernel=kernel)
    return replace(exported.backbone, **kept, attention=attention, checkpoint=weights)


def _shown(value: Any) -> str:
    """Return a value for a message, without the name of its class."""
    return str(asdict(value) if is_dataclass(value) and not isinstance(value, type) else value)


def stored_image_size(weights: Path) -> ImageSize | None:
    """Return the size of the images that an exported model reads, from the description next to a file with its weights.

    None if there is no description, or it is damaged.
    """
    try:
        size = json.loads((weights.parent / CONFIG).read_text(encoding="utf-8"))[KEY]["img_size"]
        require_size(size, "img_size")
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None
    return tuple(size) if isinstance(size, list) else size


def holds_variant(path: str) -> bool:
    """Return whether a file holds the tensors of a variant, written by `export`, and not only those of timm's model."""
    try:
        with safe_open(path, framework="pt") as file:
            return KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False

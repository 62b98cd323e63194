"""What is diagnosed: a model in eval mode with the preprocessing it wants, from timm, a run or Hugging Face."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
import yaml
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn

from sinkablate.config import (
    AugmentConfig,
    BackboneConfig,
    ImageConfig,
    ModelChoice,
    SourceConfig,
    ThresholdConfig,
    build,
)
from sinkablate.data.images import ImageData
from sinkablate.data.transforms import eval_transform
from sinkablate.errors import UserError
from sinkablate.run_directory import check_checkpoint, last_checkpoint
from sinkablate.vit.backbone import build_backbone
from sinkablate.vit.weights import read_weights


@dataclass(frozen=True)
class Subject:
    """A model to be measured."""

    model: nn.Module
    """In eval mode, fp32."""
    description: dict[str, Any]
    """Model, weights and preprocessing as plain values: printed, stored, and compared when a diagnosis goes on."""
    transform: Callable[[Image.Image], Tensor]
    """From a PIL image of `in_chans` channels to (C, H, W)."""
    in_chans: int
    data: ImageData | None = None
    """A run's own images."""
    probe_images: int = 0
    """How many of them the run looked at while it trained."""
    thresholds: ThresholdConfig = ThresholdConfig()
    """A run's own, else the defaults."""


def timm_subject(choice: ModelChoice) -> Subject:
    """A timm model with the preprocessing of its own pretrained configuration.

    Raises:
        UserError: Unknown model, or weights that cannot be had or do not fit.
    """
    assert choice.name is not None
    cfg = _pretrained_cfg(choice.name)
    channels, _, side = cfg.input_size if cfg else (3, 224, 224)
    size = choice.img_size or side
    config = BackboneConfig(name=choice.name, checkpoint=choice.checkpoint,
                            pretrained=choice.pretrained and not choice.checkpoint)
    model = build_backbone(config, num_classes=0, in_chans=channels, img_size=size, seed=0)
    weights = choice.checkpoint or ("timm's" if choice.pretrained else "random")
    data = resolve_data_config({"input_size": (channels, size, size)}, pretrained_cfg=cfg.to_dict())
    seen = {name: data[name] for name in ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")}
    return _subject(model, {"model": choice.name, "weights": weights, "preprocessing": seen},
                    create_transform(**data, is_training=False), channels)


def _pretrained_cfg(name: str) -> Any:
    """timm's configuration of a model and tag; None for an unknown model, which `build_backbone` refuses."""
    model, _, tag = name.partition(".")
    if not timm.is_model(model):
        return None
    try:
        cfg = timm.get_pretrained_cfg(name)
    except RuntimeError:
        cfg = None
    if cfg is None:
        tags = ", ".join(x.partition(".")[2] for x in timm.list_pretrained(f"{model}.*")) or "none"
        raise UserError(f"backbone.name={name}: {model} has no weights tagged {tag or 'by default'}; there are {tags}")
    return cfg


def run_subject(run: str) -> Subject:
    """The last checkpoint of a run of ours, with the run's own data.

    Raises:
        UserError: The directory holds no run, or its checkpoint is truncated or of another model.
    """
    directory = Path(run)
    if not run or not (directory / "config.yaml").is_file():
        raise UserError(f"run={run} holds no config.yaml: not the directory of a run")
    path = last_checkpoint(directory)
    if not path.is_file():
        raise UserError(f"run={run} has no checkpoint ({path})")
    check_checkpoint(path)
    checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    saved = checkpoint["hyper_parameters"]
    config = replace(build(BackboneConfig, _tuples(saved["backbone"])), pretrained=False, checkpoint=None)
    shape = {name: saved[name] for name in ("num_classes", "in_chans", "img_size", "seed")}
    model = build_backbone(config, **shape)
    try:
        model.load_state_dict(read_weights(str(path))[0])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"run={run}: the checkpoint is of another model ({reason})") from None
    try:
        stored = yaml.safe_load((directory / "config.yaml").read_text())
        data = stored["data"] | {name: build(kind, _tuples(stored["data"][name])) for name, kind in
                                 (("source", SourceConfig), ("image", ImageConfig), ("augment", AugmentConfig))}
        thresholds = build(ThresholdConfig, _tuples(stored["diagnostics"]["thresholds"]))
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"run={run}: config.yaml is not the configuration of a run ({reason})") from None
    images: ImageConfig = data["image"]
    module = ImageData(**data)
    seen = {"size": images.size, "in_chans": images.in_chans, "mean": list(images.mean), "std": list(images.std),
            "interpolation": images.interpolation, "crop_pct": images.crop_pct}
    description = {"model": f"{stored['variant']} ({config.name})", "weights": str(path),
                   "step": int(checkpoint["global_step"]), "preprocessing": seen}
    return replace(_subject(model, description, eval_transform(images), images.in_chans), data=module,
                   probe_images=int(stored["diagnostics"]["images"]), thresholds=thresholds)


def hugging_face_subject(location: str) -> Subject:
    """A vision model of transformers from a local folder, or untrained from a `config.json`.

    Raises:
        UserError: transformers is not installed, or the folder holds no vision model it knows.
    """
    try:
        import transformers
    except ImportError as error:
        raise UserError("hf needs the package transformers: pip install 'sinkablate[hf]'") from error
    path = Path(location)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    if not location or not path.exists():
        raise UserError(f"hf={location}: no such file or folder (a local folder, or a config.json)")
    torch.manual_seed(0)  # for a model that is built from a configuration alone
    try:
        config: Any = transformers.AutoConfig.from_pretrained(location, local_files_only=True)
        config = getattr(config, "vision_config", config)
        family: Any = transformers.AutoModel._model_mapping[type(config)]
        family = family[0] if isinstance(family, tuple) else family
        if path.is_dir():
            model = family.from_pretrained(location, config=config, local_files_only=True, dtype=torch.float32,
                                           attn_implementation="sdpa")
        else:
            model = family._from_config(config, attn_implementation="sdpa")
    except Exception as error:  # many kinds, from many loaders
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"hf={location}: transformers cannot load it ({reason})") from None
    side, channels = _image_shape(config)
    if not (side and channels):
        raise UserError(f"hf={location}: {type(model).__name__} is not made for square images of one size")
    transform, seen = _hugging_face_preprocessing(path, side, channels)
    weights = location if path.is_dir() else "random"
    if seen["input_size"][-1] != side:
        _require_other_size(model, seen["input_size"], side, location)
    return _subject(model.float(), {"model": f"{type(model).__name__} {location}", "weights": weights,
                                    "preprocessing": seen}, transform, channels)


def _image_shape(config: Any) -> tuple[int, int]:
    """Side and channels of the square images that a configuration of transformers names; 0 for what it does not."""
    size = getattr(config, "image_size", None) or 0
    sides = {size} if isinstance(size, int) else set(size)
    return sides.pop() if len(sides) == 1 else 0, getattr(config, "num_channels", None) or 0


def _require_other_size(model: nn.Module, shape: list[int], side: int, location: str) -> None:
    """See that a model takes images of the preprocessing's size, which is not its own.

    Raises:
        UserError: It does not interpolate its positions.
    """
    try:
        with torch.no_grad():
            model(pixel_values=torch.zeros(1, *shape))
    except (ValueError, RuntimeError):
        raise UserError(f"hf={location}: preprocessor_config.json makes images of {shape[-1]} pixels, "
                        f"{type(model).__name__} takes {side} only") from None


def _hugging_face_preprocessing(path: Path, side: int, channels: int) -> tuple[Any, dict[str, Any]]:
    """The image processor of a folder's preprocessor_config.json, or a plain one: resize to the side, mean and std .5.

    Raises:
        UserError: The processor cannot be made, or does not make square images of one size.
    """
    file = path / "preprocessor_config.json"
    if not file.is_file():
        half = (0.5,) * channels
        return eval_transform(ImageConfig(size=side, in_chans=channels, mean=half, std=half)), {
            "input_size": [channels, side, side], "mean": half, "std": half, "interpolation": "bicubic",
            "crop_pct": 1.0, "source": "no preprocessor_config.json: mean and std .5"}
    from transformers import AutoImageProcessor

    try:
        processor: Any = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            str(path), local_files_only=True)

        def transform(image: Image.Image) -> Tensor:
            pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
            return pixels

        blank = Image.new("RGB" if channels == 3 else "L", (300, 200))
        made = tuple(transform(blank).shape)
    except Exception as error:  # many kinds, from many processors
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"hf={path}: {file.name} makes no image processor ({reason})") from None
    if made[0] != channels or made[1] != made[2]:
        raise UserError(f"hf={path}: {file.name} makes images of shape {made}, "
                        f"the model takes {channels} channels and squares")
    names = ("size", "crop_size", "image_mean", "image_std", "resample", "do_center_crop")
    stored = json.loads(file.read_text())
    return transform, {"input_size": list(made), "source": file.name,
                       **{name: stored[name] for name in names if name in stored}}


def _subject(model: nn.Module, description: dict[str, Any], transform: Callable[[Image.Image], Tensor],
             in_chans: int) -> Subject:
    return Subject(model.float().eval(), json.loads(json.dumps(description)), transform, in_chans)


def _tuples(tree: Any) -> Any:
    """Lists of a YAML file or checkpoint as the tuples of a config class."""
    if isinstance(tree, dict):
        return {key: _tuples(value) for key, value in tree.items()}
    return tuple(tree) if isinstance(tree, list) else tree


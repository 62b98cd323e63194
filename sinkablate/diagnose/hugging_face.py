"""Load a vision model of Hugging Face's transformers from a local folder."""

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from sinkablate.config import ImageConfig
from sinkablate.data.transforms import eval_transform
from sinkablate.diagnose.model import LoadedModel, measurable, require_finite
from sinkablate.errors import UserError, first_line
from sinkablate.files.writing import as_stored


def load_hugging_face(location: str) -> LoadedModel:
    """Load a vision model of transformers from a local folder, or build an untrained one from a `config.json`.

    Raises:
        UserError: transformers is not installed, or the folder holds no vision model that it supports.
    """
    try:
        import transformers
    except ImportError as error:
        raise UserError("hf needs the package transformers: pip install 'sinkablate[hf]'") from error
    path = Path(location)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    if not location or not path.exists():
        raise UserError(f"hf={location}: no such file or folder; name a local folder or a config.json")
    try:
        config: Any = transformers.AutoConfig.from_pretrained(location, local_files_only=True)
        config = getattr(config, "vision_config", config)
        family: Any = transformers.AutoModel._model_mapping[type(config)]
        family = family[0] if isinstance(family, tuple) else family

        def untrained(seed: int) -> nn.Module:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return measurable(family._from_config(config, attn_implementation="sdpa"))

        if path.is_dir():
            model = measurable(
                family.from_pretrained(
                    location, config=config, local_files_only=True, dtype=torch.float32, attn_implementation="sdpa"
                )
            )
        else:
            model = untrained(0)
    except Exception as error:  # loaders raise errors of many kinds
        raise UserError(f"hf={location}: transformers cannot load it ({first_line(error)})") from None
    require_finite(model, f"hf={location}")
    side, channels = _image_shape(config)
    if not (side and channels):
        raise UserError(f"hf={location}: {type(model).__name__} does not take square images of a fixed size")
    transform, preprocessing = _hugging_face_preprocessing(path, side, channels)
    weights = location if path.is_dir() else "random"
    if preprocessing["input_size"][-1] != side:
        _require_other_size(model, preprocessing["input_size"], side, location)
    return LoadedModel(
        model=model,
        untrained=untrained,
        in_chans=channels,
        transform=transform,
        description=as_stored(
            {"model": f"{type(model).__name__} {location}", "weights": weights, "preprocessing": preprocessing}
        ),
    )


def _image_shape(config: Any) -> tuple[int, int]:
    """Return side and channels of the square images in a configuration of transformers; 0 for what it does not name."""
    size = getattr(config, "image_size", None) or 0
    sides = {size} if isinstance(size, int) else set(size)
    return sides.pop() if len(sides) == 1 else 0, getattr(config, "num_channels", None) or 0


def _require_other_size(model: nn.Module, shape: list[int], side: int, location: str) -> None:
    """Check that a model takes images whose size differs from the one in its configuration.

    Raises:
        UserError: The model does not interpolate its position embeddings.
    """
    try:
        with torch.no_grad():
            model(pixel_values=torch.zeros(1, *shape))
    except (ValueError, RuntimeError):
        raise UserError(
            f"hf={location}: preprocessor_config.json produces images of {shape[-1]} pixels, but "
            f"{type(model).__name__} accepts only {side}"
        ) from None


def _hugging_face_preprocessing(path: Path, side: int, channels: int) -> tuple[Any, dict[str, Any]]:
    """Return the image processor of a folder's preprocessor_config.json, and its description.

    Without that file: resize to the side, mean and standard deviation 0.5.

    Raises:
        UserError: The processor cannot be built, or does not return square images of one size.
    """
    file = path / "preprocessor_config.json"
    if not file.is_file():
        half = (0.5,) * channels
        return eval_transform(ImageConfig(size=side, in_chans=channels, mean=half, std=half)), {
            "input_size": [channels, side, side],
            "mean": half,
            "std": half,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "source": "no preprocessor_config.json: mean and std .5",
        }
    from transformers import AutoImageProcessor

    try:
        processor: Any = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            str(path), local_files_only=True
        )

        def transform(image: Image.Image) -> Tensor:
            pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
            return pixels

        blank = Image.new("RGB" if channels == 3 else "L", (300, 200))
        made = tuple(transform(blank).shape)
    except Exception as error:  # processors raise errors of many kinds
        raise UserError(
            f"hf={path}: {file.name} does not define a usable image processor ({first_line(error)})"
        ) from None
    if made[0] != channels or made[1] != made[2]:
        raise UserError(
            f"hf={path}: {file.name} produces images of shape {made}, but the model takes square images of {channels} "
            "channels"
        )
    names = ("size", "crop_size", "image_mean", "image_std", "resample", "do_center_crop")
    stored = json.loads(file.read_text(encoding="utf-8"))
    return transform, {
        "input_size": list(made),
        "source": file.name,
        **{name: stored[name] for name in names if name in stored},
    }

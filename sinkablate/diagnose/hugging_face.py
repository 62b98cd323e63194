"""Load a model of Hugging Face's transformers from a local folder or from the hub."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from sinkablate.config import ImageConfig, image_size, size_text
from sinkablate.data.transforms import eval_transform
from sinkablate.diagnose.hugging_face_folder import local_folder, refuse_folder_of_timm, require_all_weights
from sinkablate.diagnose.model import LoadedModel, measurable, require_finite
from sinkablate.diagnose.texts import TextEncoder
from sinkablate.errors import UserError, first_line
from sinkablate.files.writing import as_stored
from sinkablate.vit.anatomy import family_of
from sinkablate.vit.family import Family
from sinkablate.vit.inputs import input_size_of, patch_size_of
from sinkablate.vit.positions import PositionRecord, Resampling, position_summary
from sinkablate.vit.sink_logits import implementations
from sinkablate.vit.tokens import max_positions
from sinkablate.vit.weights_origin import WeightsOrigin, loading_summary

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "tokenizer.model")
"""A folder with a tokenizer has at least one of these files."""
WEIGHTS_FILES = ("*.safetensors", "*.bin")
USE_TEXTS = "use --texts FILE or --texts builtin"
UNLIMITED = 2**20
"""Largest number of tokens of a model that does not state one."""


def load_hugging_face(location: str, *, texts: bool = False, remedy: str = USE_TEXTS) -> LoadedModel:
    """Load a model of transformers from a folder or from the hub, or build an untrained one from a `config.json`.

    Args:
        location: The folder, the file, or USER/NAME on the Hugging Face hub.
        texts: Load a model that reads texts, with its tokenizer, instead of one that reads images.
        remedy: What to do about a model that reads texts instead of images: the end of the message that refuses it.

    Raises:
        UserError: transformers is not installed, or the folder holds no such model that it supports.
    """
    name, location = location, local_folder(location)
    model, untrained, config = _load(location, "text_config" if texts else "vision_config")
    require_finite(model, f"hf={name}")
    known, preprocessing = (
        _text_parts(model, config, location) if texts else _image_parts(model, config, location, remedy)
    )
    weights = name if Path(location).is_dir() else "random"
    if Path(location).is_dir():
        stored = str(config.dtype or torch.float32).removeprefix("torch.")
        model.weights_origin = WeightsOrigin(source=name, dtypes=(stored,))  # type: ignore[assignment]
    description = {"model": f"{type(model).__name__} {name}", "weights": weights, "preprocessing": preprocessing}
    description |= position_summary(model) | loading_summary(model)
    random = "hf names a config.json, which holds none" if weights == "random" else ""
    return LoadedModel(model=model, untrained=untrained, description=as_stored(description), random=random, **known)


def _load(location: str, part: str) -> tuple[nn.Module, Callable[[int], nn.Module], Any]:
    """Return a model, a function that makes an untrained one from a seed, and the configuration.

    Args:
        location: A folder, or a config.json.
        part: Key of the part of the configuration to build, if the configuration describes several models.
    """
    try:
        import transformers
    except ImportError as error:
        raise UserError("hf needs the transformers package: pip install 'sinkablate[hf]'") from error
    path = Path(location)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    if (path / "config.json").is_file() and not any(file for name in WEIGHTS_FILES for file in path.glob(name)):
        raise UserError(
            f"hf={location}: contains no weights; to build the model with random ones, name its config.json"
        )
    refuse_folder_of_timm(location)
    try:
        config: Any = transformers.AutoConfig.from_pretrained(location, local_files_only=True)
        config = getattr(config, part, config)
        family: Any = transformers.AutoModel._model_mapping[type(config)]
        family = family[0] if isinstance(family, tuple) else family
        chosen = implementations(family)

        def untrained(seed: int) -> nn.Module:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return measurable(family._from_config(config, **chosen))

        if not path.is_dir():
            return untrained(0), untrained, config
        model, report = family.from_pretrained(
            location, config=config, local_files_only=True, dtype=torch.float32, output_loading_info=True, **chosen
        )
    except Exception as error:  # loaders raise errors of many kinds
        raise UserError(f"hf={location}: transformers cannot load it ({first_line(error)})") from None
    require_all_weights(location, model, report["missing_keys"])
    return measurable(model), untrained, config


def _image_parts(model: nn.Module, config: Any, location: str, remedy: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what `LoadedModel` needs to know about a model that reads images, and its preprocessing.

    Raises:
        UserError: The model reads something else, or images of varying size.
    """
    own, channels = input_size_of(model), getattr(config, "num_channels", None) or 0
    if own is None or not channels:
        if _family(model, location).reads == "texts":
            raise UserError(f"hf={location}: {type(model).__name__} reads texts, not images; {remedy}")
        raise UserError(f"hf={location}: {type(model).__name__} does not take images of a fixed size")
    transform, preprocessing = _hugging_face_preprocessing(Path(location), own, channels)
    height, width = preprocessing["input_size"][-2:]
    if (height, width) != own:
        _require_other_size(model, preprocessing["input_size"], own, location)
        if hasattr(getattr(model, "embeddings", None), "interpolate_pos_encoding"):
            model.position_record = PositionRecord(  # type: ignore[assignment]  # a plain attribute of the module
                resampling=Resampling.between(own, (height, width), patch_size_of(model), "transformers")
            )
    return {"in_chans": channels, "transform": transform}, preprocessing


def _text_parts(model: nn.Module, config: Any, location: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what `LoadedModel` needs to know about a model that reads texts, and its preprocessing.

    Raises:
        UserError: The model reads images, or has no tokenizer.
    """
    family = _family(model, location)
    if family.reads != "texts":
        raise UserError(f"hf={location}: {type(model).__name__} reads images, not texts; use --images")
    tokenizer, embedding = _tokenizer(location), model.get_input_embeddings()  # type: ignore[operator]
    encoder = TextEncoder(tokenizer, max_tokens(model, tokenizer), embedding.num_embeddings, family.causal)
    return {"encode": encoder}, {"tokenizer": type(tokenizer).__name__, "max_tokens": encoder.max_tokens}


def _family(model: nn.Module, location: str) -> Family:
    try:
        return family_of(model)
    except UserError as error:
        raise UserError(f"hf={location}: {error}") from None


def _tokenizer(location: str) -> Any:
    """Return the tokenizer of a folder, or of the folder of a config.json.

    Raises:
        UserError: There is none, or it cannot be loaded.
    """
    from transformers import AutoTokenizer

    folder = Path(location) if Path(location).is_dir() else Path(location).parent
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise UserError(
            f"hf={location}: there is no tokenizer in {folder} ({', '.join(TOKENIZER_FILES)}); "
            "save it there with tokenizer.save_pretrained"
        )
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)  # type: ignore[no-untyped-call]
    except Exception as error:  # loaders raise errors of many kinds
        raise UserError(f"hf={location}: the tokenizer cannot be loaded ({first_line(error)})") from None


def max_tokens(model: nn.Module, tokenizer: Any) -> int:
    """Return the largest number of tokens that both a model and its tokenizer accept."""
    return min(max_positions(model) or UNLIMITED, tokenizer.model_max_length, UNLIMITED)


def _require_other_size(model: nn.Module, shape: list[int], own: tuple[int, int], location: str) -> None:
    """Check that a model takes images whose size differs from the one in its configuration.

    Raises:
        UserError: The model does not interpolate its position embeddings.
    """
    try:
        with torch.no_grad():
            model(pixel_values=torch.zeros(1, *shape))
    except (ValueError, RuntimeError):
        raise UserError(
            f"hf={location}: preprocessor_config.json produces images of {size_text(image_size(*shape[-2:]))} pixels, "
            f"but {type(model).__name__} accepts only {size_text(image_size(*own))}"
        ) from None


def _hugging_face_preprocessing(path: Path, size: tuple[int, int], channels: int) -> tuple[Any, dict[str, Any]]:
    """Return the image processor of a folder's preprocessor_config.json, and its description.

    Without that file: resize to the size of the model, mean and standard deviation 0.5.

    Raises:
        UserError: The processor cannot be built, or does not return images with this number of channels.
    """
    file = path / "preprocessor_config.json"
    if not file.is_file():
        half = (0.5,) * channels
        return eval_transform(ImageConfig(size=size, in_chans=channels, mean=half, std=half)), {
            "input_size": [channels, *size],
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

        mode = "RGB" if channels == 3 else "L"
        wide, tall = (tuple(transform(Image.new(mode, shape)).shape) for shape in ((300, 200), (200, 300)))
    except Exception as error:  # processors raise errors of many kinds
        raise UserError(
            f"hf={path}: {file.name} does not define a usable image processor ({first_line(error)})"
        ) from None
    if wide != tall or wide[0] != channels:
        raise UserError(
            f"hf={path}: {file.name} produces images of shape {wide} from a wide and {tall} from a tall image; the "
            f"model takes images of one size with {channels} channels"
        )
    names = ("size", "crop_size", "image_mean", "image_std", "resample", "do_center_crop")
    content = file.read_bytes()
    stored = json.loads(content)
    return transform, {
        "input_size": list(wide),
        "source": file.name,
        **{name: stored[name] for name in names if name in stored},
        "sha256": hashlib.sha256(content).hexdigest(),  # every other setting, such as do_normalize
    }

"""Read a checkpoint file: which of its parts are weights, and which of these to load."""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sinkablate.config import BackboneConfig, ConfigError, ImageSize, build
from sinkablate.config.checks import with_tuples
from sinkablate.errors import listed
from sinkablate.vit.additions import without_additions
from sinkablate.vit.hub_folder import holds_variant, stored_image_size
from sinkablate.vit.unreadable_files import why_unreadable

TRAINED, AVERAGED = "backbone", "ema.module"
"""Parts of a run's checkpoint that are weights of its model: those that were trained, and their moving average."""
EMA_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", AVERAGED)
"""Keys under which training scripts store a moving average of the weights: those of timm, of others, and of a run."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The weights that a file contains."""

    path: str
    weights: dict[str, Tensor]
    """Name -> tensor on the CPU; floating-point tensors are in float32, in which timm resamples positions."""
    key: str = ""
    """Where in the file they are, such as `state_dict_ema`; empty if the file contains nothing else."""
    others: tuple[str, ...] = ()
    """Keys of other weights in the file."""
    dtypes: tuple[str, ...] = ()
    """Floating-point types in the file, such as float16."""
    of_variant: bool = False
    """Whether a run or `export` wrote the file, so that it holds the tensors of a variant and not of timm's model."""
    img_size: ImageSize | None = None
    """Size of the images that such a variant reads; None for other files."""
    plain: bool = False
    """Whether a run wrote the file whose model is that of timm, so that a mechanism can be added to it."""


def read_checkpoint(path: str, key: str | None = None) -> Checkpoint:
    """Read the weights in a .safetensors, .pt, .pth, .bin or .ckpt file. No Python objects are ever unpickled.

    Args:
        path: The file.
        key: Name of the weights to read if the file contains several, such as `teacher`: a key, or the first part of
            all names. By default a moving average is read if there is one, as in timm. The keys of a run are
            `TRAINED` and `AVERAGED`.

    Raises:
        ConfigError: The file is missing, truncated, contains Python objects or no weights, or it is unclear which
            weights are meant; the message names it.
    """
    content = _content(path)
    from_run = _is_run(content)
    candidates = _of_run(content["state_dict"]) if from_run else dict(_state_dicts(content))
    if not candidates:
        raise ConfigError(
            f"checkpoint={path}: contains no state dict; save one with torch.save(model.state_dict(), FILE)"
        )
    name, tensors, others = _named(path, candidates, key) if key is not None else _chosen(path, candidates)
    _require_floating_weights(path, tensors)
    mapped = not path.endswith(".safetensors")  # then copied, so that a later change of the file has no effect
    return Checkpoint(
        path=path,
        weights={k: v.to(torch.float32 if v.is_floating_point() else v.dtype, copy=mapped) for k, v in tensors.items()},
        key=name,
        others=others,
        dtypes=tuple(sorted({str(v.dtype).removeprefix("torch.") for v in tensors.values() if v.is_floating_point()})),
        of_variant=from_run or (not mapped and holds_variant(path)),
        img_size=content["hyper_parameters"].get("img_size") if from_run else stored_image_size(Path(path)),
        plain=from_run and _is_plain(content["hyper_parameters"]),
    )


def _content(path: str) -> Any:
    """Return what a file contains. Tensors of torch's formats are memory-mapped, not read."""
    key = f"checkpoint={path}"
    if not Path(path).is_file():
        is_folder = Path(path).is_dir()
        raise ConfigError(f"{key}: {'a folder; name the file with the weights' if is_folder else 'no such file'}")
    try:
        if path.endswith(".safetensors"):
            # Not memory-mapped, because pages of the file would count as memory in addition to the parameters.
            with safe_open(path, framework="pt", backend="pread") as file:
                return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  # not a dict
        return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise ConfigError(f"{key}: {why_unreadable(path, error)}") from error


def _is_zip(path: str) -> bool:
    """Whether a file can be memory-mapped: it is not in the format that torch wrote before version 1.6."""
    with Path(path).open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _is_run(content: Any) -> bool:
    """Whether the content of a file was written by a run of sinkablate."""
    if not isinstance(content, dict):
        return False
    saved = content.get("hyper_parameters")
    return isinstance(saved, dict) and ("backbone" in saved or "toy" in saved) and "state_dict" in content


def _is_plain(hyper_parameters: dict[str, Any]) -> bool:
    """Whether the model of a run is that of timm, without registers of its own, a mechanism or another change."""
    try:
        backbone = build(BackboneConfig, with_tuples(hyper_parameters["backbone"]))
    except (ConfigError, KeyError, TypeError, ValueError):
        return False
    backbone = replace(
        backbone, registers=backbone.registers or None, register_init_std=BackboneConfig.register_init_std
    )
    return backbone == without_additions(backbone) and backbone.match_parameters == "none" and not backbone.fixed_sincos


def _of_run(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return the weights of a run's model and, if there is one, their moving average."""
    parts = {
        name: {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
        for name in (TRAINED, AVERAGED)
    }
    return {name: tensors for name, tensors in parts.items() if tensors}


def _state_dicts(content: Any, key: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the state dicts in nested dictionaries with their keys, joined by dots.

    A state dict is a dictionary of tensors of which at least one has a name that ends in `weight`; the moments of
    optimizers do not.
    """
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        return
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if any(name.endswith("weight") for name in tensors):
        yield key, tensors
        return
    for name, value in content.items():
        yield from _state_dicts(value, f"{key}.{name}" if key else name)


def _require_floating_weights(path: str, tensors: dict[str, Tensor]) -> None:
    """Refuse quantized weights, whose scales every library stores in its own way.

    Raises:
        ConfigError: A weight is stored as integers.
    """
    for name, tensor in tensors.items():
        if name.endswith(("weight", "bias")) and not tensor.is_floating_point():
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise ConfigError(
                f"checkpoint={path}: {name} is stored as {dtype}, and quantized weights are not read; "
                "save them in a floating-point type"
            )


Named = tuple[str, dict[str, Tensor], tuple[str, ...]]
"""Key of the weights to load, the weights, and the keys of others in the file."""


def _other_keys(candidates: dict[str, dict[str, Tensor]], name: str) -> tuple[str, ...]:
    return tuple(other for other in candidates if other != name)


def _chosen(path: str, candidates: dict[str, dict[str, Tensor]]) -> Named:
    """Return the weights to load if no key is given: the only ones, or a moving average.

    Raises:
        ConfigError: There are several weights; the message lists their keys.
    """
    averages = [name for last in EMA_KEYS for name in candidates if f".{name}".endswith(f".{last}")]
    if len(candidates) > 1 and not averages:
        raise ConfigError(
            f"checkpoint={path}: contains several weights: {listed(candidates)}; choose with checkpoint_key=NAME",
            remedies=("checkpoint_key=NAME",),
        )
    name = averages[0] if averages else next(iter(candidates))
    return name, candidates[name], _other_keys(candidates, name)


def _named(path: str, candidates: dict[str, dict[str, Tensor]], key: str) -> Named:
    """Return the weights with a key, which may be that of a dictionary around them, or a prefix of their names.

    Raises:
        ConfigError: None or several match; the message lists the keys of the file.
    """
    key = key.rstrip(".")
    below = [name for name in candidates if name == key or name.startswith(f"{key}.")]
    if len(below) == 1:
        return below[0], candidates[below[0]], _other_keys(candidates, below[0])
    groups = {
        name: {k.removeprefix(f"{key}."): v for k, v in tensors.items() if k.startswith(f"{key}.")}
        for name, tensors in candidates.items()
    }
    matching = [name for name, tensors in groups.items() if tensors]
    if not below and len(matching) == 1:
        others = {name.partition(".")[0] for name in candidates[matching[0]] if not name.startswith(f"{key}.")}
        return key, groups[matching[0]], tuple(sorted(others))
    prefixes = {name.partition(".")[0] for tensors in candidates.values() for name in tensors if "." in name}
    names = below or (list(candidates) if len(candidates) > 1 else [*filter(None, candidates), *sorted(prefixes)])
    raise ConfigError(f"checkpoint_key={key}: {path} contains {listed(names)}; choose one of these")


def require_finite_weights(checkpoint: Checkpoint) -> None:
    """Refuse weights that cannot be trained from.

    Raises:
        ConfigError: A tensor holds NaN or infinity.
    """
    for name, tensor in checkpoint.weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ConfigError(f"checkpoint={checkpoint.path}: {name} holds NaN or infinity; use an earlier checkpoint")

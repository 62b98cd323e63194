"""Loading weights into timm's models, from files and from the hub, with timm's own loaders."""

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import timm
import torch
from timm.models import PretrainedCfg, filter_pretrained_cfg
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sinkablate.config import BackboneConfig
from sinkablate.vit.checkpoint_files import Checkpoint
from sinkablate.vit.misfit import Attempt, misfit
from sinkablate.vit.model_names import NamedModel, named_model
from sinkablate.vit.prefixes import likely_prefixes, without_prefix
from sinkablate.vit.timm_models import is_plain, model_arguments, refusal
from sinkablate.vit.weights_origin import WeightsOrigin


class Pretrained(NamedTuple):
    """A model with weights."""

    model: Any
    loaded: set[str]
    """Names of the parameters that came with the weights."""
    origin: WeightsOrigin | None


class InMemoryCfg(PretrainedCfg):
    """timm's configuration of weights that are already in memory; timm would copy them together with the rest."""

    def to_dict(self, remove_source: bool = False, remove_null: bool = True) -> dict[str, Any]:
        """Return the fields as a dict that shares its values."""
        values: dict[str, Any] = filter_pretrained_cfg(dict(vars(self)), remove_source, remove_null)
        return values


class LoadedTensors(TorchFunctionMode):
    """Records which tensors timm copies into a model while it loads weights.

    A parameter on the meta device has no memory. Nothing is copied into it; the tensor itself can then become the
    parameter (`assign`), so weights are neither drawn first nor held twice.
    """

    def __init__(self) -> None:
        self.sources: dict[int, Tensor] = {}
        self.dtypes: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Record a copy into a tensor on the meta device instead of making it."""
        if func is Tensor.copy_ and args[0].is_meta:
            self.sources[id(args[0])] = args[1]
            if args[1].is_floating_point():
                self.dtypes.add(str(args[1].dtype).removeprefix("torch."))
            return args[0]
        return func(*args, **(kwargs or {}))

    def assign(self, model: nn.Module) -> set[str]:
        """Make the recorded tensors the parameters of the model, in float32, allocate the others, and return the names.

        Returns:
            Names of the parameters that were recorded.
        """
        names = set()
        for prefix, module in model.named_modules():
            for leaf, parameter in list(module.named_parameters(recurse=False)):
                source = self.sources.pop(id(parameter), None)
                if source is not None:
                    names.add(f"{prefix}.{leaf}" if prefix else leaf)
                value = (
                    torch.zeros_like(parameter, device="cpu")
                    if source is None
                    else _own_memory(source.detach().float())
                )
                setattr(module, leaf, nn.Parameter(value, requires_grad=parameter.requires_grad))
        return names


def _own_memory(tensor: Tensor) -> Tensor:
    """Return a contiguous tensor that is not a part of another one; the tensor itself if it is that already."""
    is_own = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if is_own else tensor.clone(memory_format=torch.contiguous_format)


class Reading(NamedTuple):
    """One way to read weights."""

    cfg: PretrainedCfg
    """timm's configuration, with the tensors of a file if they do not come from the hub."""
    num_classes: int
    """Number of classes of their head."""
    prefix: str = ""
    """What was removed from the names of the tensors."""
    unread: tuple[str, ...] = ()
    """Names of the tensors that are left out."""


def create_pretrained(
    config: BackboneConfig, shape: dict[str, Any], seed: int, checkpoint: Checkpoint | None
) -> Pretrained:
    """Create timm's model with the weights of a file, or with those that timm or the hub has for its name.

    Args:
        config: Name and shape of the model.
        shape: num_classes, in_chans and img_size; with None, the number of classes is that of the weights.
        seed: Seed of a new head, if the weights have another number of classes.
        checkpoint: Content of a file in timm's layout, or in an original layout that timm converts.

    Raises:
        ConfigError: There are no such weights, or they do not fit.
    """
    named = named_model(config.name)
    arguments = {**named.arguments, **shape, **model_arguments(config)}
    try:
        outline: Any = timm.create_model(named.architecture, device="meta", **arguments)
    except Exception as error:
        raise refusal(config, error) from error
    failed: list[Attempt] = []
    for reading in _readings(named, checkpoint, list(outline.state_dict())):
        loaded = LoadedTensors()
        try:
            model, names = _create(
                named, arguments, reading, seed, shape["num_classes"], loaded if is_plain(outline) else None
            )
        except RuntimeError as error:
            if checkpoint is None:
                raise refusal(config, error) from error
            failed.append(Attempt(error, len(loaded.sources), reading.prefix))
        except Exception as error:
            raise refusal(config, error) from error
        else:
            if model.num_classes != reading.num_classes:
                names -= {"head.weight", "head.bias"}
            if checkpoint is None:
                origin = WeightsOrigin(source=config.name, dtypes=tuple(sorted(loaded.dtypes)))
            else:
                origin = origin_of(checkpoint, reading.prefix, reading.unread)
            return Pretrained(model, names, origin)
    assert checkpoint is not None
    raise misfit(config, checkpoint, failed, len(outline.state_dict()))


def _readings(named: NamedModel, checkpoint: Checkpoint | None, names: list[str]) -> Iterator[Reading]:
    """Yield the ways in which weights may be meant, the most likely first."""
    classes = named.cfg.get("num_classes") or 0
    if checkpoint is None:
        yield Reading(PretrainedCfg(**named.cfg), classes)
        return
    classifier = named.cfg.get("classifier") or "head"
    for prefix in likely_prefixes(checkpoint, names):
        weights, unread = without_prefix(checkpoint.weights, prefix)
        head = weights.get(f"{classifier}.weight")
        for num_classes in dict.fromkeys((0 if head is None else len(head), classes)):
            overrides = {"state_dict": dict(weights), "source": None, "custom_load": False, "num_classes": num_classes}
            yield Reading(InMemoryCfg(**named.cfg | overrides), num_classes, prefix, unread)


def _create(
    named: NamedModel,
    arguments: dict[str, Any],
    reading: Reading,
    seed: int,
    num_classes: int | None,
    loaded: LoadedTensors | None,
) -> tuple[Any, set[str]]:
    """Create a model with weights, and with a new head if these have another number of classes.

    Args:
        named: The model.
        arguments: Arguments of its architecture.
        reading: The weights.
        seed: Seed of everything that timm draws.
        num_classes: Number of classes of the result; None for that of the weights.
        loaded: Receives the tensors, which then become the parameters; without it, timm draws parameters and copies
            the tensors into them.

    Returns:
        The model, and the names of the parameters that come with the weights.
    """
    arguments = arguments | {"num_classes": reading.num_classes}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if loaded is None:
            model = timm.create_model(named.architecture, pretrained=True, pretrained_cfg=reading.cfg, **arguments)
            names = {name for name, _ in model.named_parameters()}
        else:
            with loaded, warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*copying from a non-meta parameter")
                model = timm.create_model(
                    named.architecture, pretrained=True, pretrained_cfg=reading.cfg, device="meta", **arguments
                )
            names = loaded.assign(model)
        model.pretrained_cfg.pop("state_dict", None)  # timm keeps it there, and its memory with it
        if num_classes not in (None, reading.num_classes):
            model.reset_classifier(num_classes)
    return model, names


def origin_of(file: Checkpoint, prefix: str = "", unread: tuple[str, ...] = ()) -> WeightsOrigin:
    """Return what was decided about the weights of a file."""
    return WeightsOrigin(
        source=file.path, key=file.key, others=file.others, prefix=prefix, unread=unread, dtypes=file.dtypes
    )

"""A model to be measured, with its preprocessing, and how to load one from timm."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn

from sinkablate.config import (
    BackboneConfig,
    ImageConfig,
    ModelChoice,
    SourceConfig,
    ThresholdConfig,
    height_and_width,
    image_size,
    keys_below,
)
from sinkablate.data.probe import ProbeSet
from sinkablate.data.transforms import eval_transform
from sinkablate.diagnose.texts import TextEncoder
from sinkablate.diagnostics.register_neurons import RegisterNeurons
from sinkablate.diagnostics.rules import ADAPTIVE_RULE, DEFAULT_RULE
from sinkablate.errors import UserError
from sinkablate.files.writing import as_stored
from sinkablate.run.evaluations import treatment_phrase
from sinkablate.toys.tasks import ToyTask
from sinkablate.vit.backbone import build_backbone
from sinkablate.vit.digest import weights_digest
from sinkablate.vit.hub_folder import ExportedModel, exported_model, resolved
from sinkablate.vit.model_names import named_model
from sinkablate.vit.positions import position_notes, position_summary
from sinkablate.vit.weights_origin import loading_notes, loading_summary

RANDOM = "backbone.pretrained=false"
"""Why the weights of a timm model are random."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model to be measured, and what is known about its images."""

    model: nn.Module
    """In eval mode, fp32."""
    description: dict[str, Any]
    """Model, weights and preprocessing as plain values: printed, stored, and compared when a diagnosis resumes."""
    untrained: Callable[[int], nn.Module]
    """Makes the same architecture with random weights, from a seed."""
    in_chans: int = 0
    transform: Callable[[Image.Image], Tensor] | None = None
    """From a PIL image of `in_chans` channels to (C, H, W); None for a toy, which is measured on sequences."""
    encode: TextEncoder | None = None
    """From a text to token ids and types; None for a model that reads images."""
    probe_set: Callable[[int], ProbeSet] | None = None
    """Returns the first images of a run's own probe set, given their number."""
    token_names: Mapping[str, str] = field(default_factory=dict)
    """Token type -> another name in figures: the null token of the NOP toy is stored as a register."""
    probe_images: int = 0
    """Number of probe images that the run measured while it trained."""
    source: SourceConfig | None = None
    """Where a run's own images are; None for a model of another origin, and for a toy."""
    thresholds: ThresholdConfig = ThresholdConfig()
    """The thresholds of a run, otherwise the defaults."""
    toy: ToyTask | None = None
    """The task of a toy."""
    drift: Mapping[str, Any] = field(default_factory=dict)
    """How much mechanisms changed the pretrained weights of a run at step 0; empty for any other model."""
    run_id: str = ""
    """Identity of the run whose weights these are; empty for a model that does not come from a run."""
    random: str = ""
    """Why the weights are random; empty for weights that were loaded."""
    register_neurons: RegisterNeurons | None = None
    """The neurons whose activations the test-time registers take over; None without such registers."""

    @property
    def rule(self) -> str:
        """The rule that labels heads unless another is chosen."""
        return DEFAULT_RULE if self.toy is None and self.encode is None else ADAPTIVE_RULE

    @property
    def notes(self) -> list[str]:
        """What every command says about the weights: that they are random, or how they were read and resampled."""
        random = [f"the weights are random ({self.random})"] if self.random else []
        return [*random, *loading_notes(self.model), *position_notes(self.model)]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The description, and a hash of weights that do not belong to a run: the file of a name may be replaced."""
        return self.description | ({} if self.run_id else {"weights_sha256": weights_digest(self.model)})

    @property
    def title(self) -> str:
        """Name of the model and its test-time registers, for figures and tables."""
        return f"{self.description['model']}{treatment_phrase(self.description.get('test_time_registers'))}"

    @property
    def unit(self) -> str:
        """What the model reads: image or text."""
        return "image" if self.encode is None else "text"


def measurable(model: nn.Module) -> nn.Module:
    """Return the model in fp32 and eval mode."""
    return model.float().eval()


def require_finite(model: nn.Module, what: str) -> None:
    """Check that all weights of a model are finite.

    Args:
        model: The model.
        what: The source of the weights, with which the message begins.

    Raises:
        UserError: A weight is NaN or infinite; the message names its parameter.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            count = int((~tensor.isfinite()).sum())
            raise UserError(
                f"{what}: {count} of the {tensor.numel()} weights in {name} are NaN or infinite: "
                "the model has diverged and cannot be measured"
            )


def load_timm(choice: ModelChoice) -> LoadedModel:
    """Load a timm model, with the preprocessing of its pretrained configuration.

    Raises:
        UserError: The model is unknown, or its weights cannot be loaded or do not fit.
    """
    assert choice.name is not None
    with keys_below("backbone"):
        exported = exported_model(choice.name)
    if exported is not None:
        return load_exported(choice, exported)
    with keys_below("backbone"):
        cfg = named_model(choice.name).cfg
        channels, *side = cfg["input_size"]
        size = choice.img_size or image_size(*side)
        config = _backbone_of(choice)
        model: Any = build_backbone(config, num_classes=None, in_chans=channels, img_size=size)
    require_finite(model, f"backbone.name={choice.name}")
    hub = choice.name if ":" in choice.name else "timm's"
    weights = choice.checkpoint or (hub if choice.pretrained else "random")
    data = resolve_data_config({"input_size": (channels, *height_and_width(size))}, pretrained_cfg=cfg)
    preprocessing = {
        name: data[name] for name in ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
    }
    bare, shape = without_weights(config), {"num_classes": model.num_classes, "in_chans": channels, "img_size": size}
    return LoadedModel(
        model=measurable(model),
        in_chans=channels,
        transform=create_transform(**data, is_training=False),
        description=as_stored(
            {"model": choice.name, "weights": weights, "preprocessing": preprocessing}
            | position_summary(model)
            | loading_summary(model)
        ),
        untrained=lambda seed: measurable(build_backbone(bare, **shape, seed=seed)),
        random="" if choice.checkpoint or choice.pretrained else RANDOM,
    )


def _backbone_of(choice: ModelChoice) -> BackboneConfig:
    """Return the configuration of a model without changes."""
    assert choice.name is not None
    return BackboneConfig(
        name=choice.name,
        checkpoint=choice.checkpoint,
        checkpoint_key=choice.checkpoint_key,
        pretrained=choice.pretrained and not choice.checkpoint,
        pos_embed_interpolation=choice.pos_embed_interpolation,
    )


def without_weights(config: BackboneConfig) -> BackboneConfig:
    """Return the configuration of the same model with random weights."""
    return replace(config, pretrained=False, checkpoint=None, checkpoint_key=None)


def load_exported(choice: ModelChoice, exported: ExportedModel) -> LoadedModel:
    """Load a model that `export` wrote, with the preprocessing of its run.

    Raises:
        UserError: The weights cannot be loaded, or are not finite.
    """
    size = choice.img_size or exported.img_size
    image = replace(exported.image, size=size)
    shape: dict[str, Any] = {"num_classes": exported.num_classes, "in_chans": exported.in_chans, "img_size": size}
    with keys_below("backbone"):
        config = resolved(_backbone_of(choice))
        model = build_backbone(config, **shape, seed=0)
    bare = without_weights(config)
    require_finite(model, f"backbone.name={choice.name}")
    weights = choice.checkpoint or (choice.name if choice.pretrained else "random")
    return LoadedModel(
        model=measurable(model),
        in_chans=exported.in_chans,
        transform=eval_transform(image),
        description=as_stored(
            {"model": f"{choice.name} ({config.name})", "weights": weights, "preprocessing": preprocessing_of(image)}
            | position_summary(model)
            | loading_summary(model)
        ),
        untrained=lambda seed: measurable(build_backbone(bare, **shape, seed=seed)),
        random="" if choice.checkpoint or choice.pretrained else RANDOM,
    )


def preprocessing_of(image: ImageConfig) -> dict[str, Any]:
    """Return the preprocessing of a run's images as plain values: printed and stored."""
    return {
        "size": image.size,
        "in_chans": image.in_chans,
        "mean": list(image.mean),
        "std": list(image.std),
        "interpolation": image.interpolation,
        "crop_pct": image.crop_pct,
    }

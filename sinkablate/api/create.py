"""Create a vision transformer with any of the mechanisms, for any training loop."""

from dataclasses import MISSING, Field, fields, replace
from inspect import Parameter, Signature
from typing import Any, get_type_hints

from torch import nn

from sinkablate.api.images import OWN_TRANSFORM
from sinkablate.api.registers import add_test_time_registers
from sinkablate.config import AttentionConfig, BackboneConfig, ImageSize, PathwayConfig, image_size
from sinkablate.config.types import checked, require_type
from sinkablate.data.transforms import eval_transform
from sinkablate.errors import UserError, require_at_least
from sinkablate.files.suggestions import did_you_mean
from sinkablate.vit.backbone import build_backbone
from sinkablate.vit.hub_folder import exported_model, names_location
from sinkablate.vit.model_names import named_model


def _options() -> dict[str, tuple[str, Field[Any]]]:
    """Every keyword of `create_model` that a config class defines: the class's group and the field.

    Fields of the pathway carry the prefix `pathway_`; `pathway` itself is its kind.
    """
    nested = ("name", "pretrained", "attention", "pathway")
    options = {field.name: ("backbone", field) for field in fields(BackboneConfig) if field.name not in nested}
    options |= {field.name: ("attention", field) for field in fields(AttentionConfig)}
    for field in fields(PathwayConfig):
        options["pathway" if field.name == "kind" else f"pathway_{field.name}"] = ("pathway", field)
    return options


OPTIONS = _options()
CONFIGS = {"backbone": BackboneConfig, "attention": AttentionConfig, "pathway": PathwayConfig}


@checked
def create_model(
    name: str = "vit_mini",
    *,
    pretrained: bool | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    seed: int = 0,
    test_time_registers: int = 0,
    **options: Any,
) -> nn.Module:
    """Create a timm vision transformer with registers, another attention mechanism or a global pathway.

    The model is the one that `sinkablate fit` trains with the same settings, and an ordinary `nn.Module`: images
    (B, C, H, W) to logits (B, K). Parameters that are not loaded are drawn from `seed` and their own names, so
    two variants share the values of all parameters that both have; the global random state does not change.

    Args:
        name: timm's model name, or `vit_mini`. Only timm's plain ViTs can be changed (vit_*, deit3_*, *_dinov2, CLIP,
            SigLIP); other families are created as they are. `local-dir:FOLDER` and `hf-hub:USER/NAME` are models that
            `sinkablate export` or timm saved there; an exported model comes with its own variant.
        pretrained: Load the weights that belong to the name, by default only those of `local-dir:` and `hf-hub:`.
        num_classes: Number of classes, 0 for a model without a classifier; None for timm's default for this model.
        in_chans: Number of input channels; None for timm's default for this model.
        seed: Seed of every parameter that is not loaded.
        test_time_registers: Number of registers to add without training, for pretrained weights. The neurons whose
            activations they take over are found on the photographs of scikit-image; `add_test_time_registers` takes
            other images.
        **options: Any key of `model.backbone` (`registers`, `img_size`, `depth`, `drop_path_rate`, `checkpoint`, ...)
            and of `model.backbone.attention` (`score`, `sink`, `gate`, `gate_position`, ...) under its own name, and
            the pathway as `pathway="global"`, `pathway_width`, `pathway_gating` and `pathway_gate_init_bias`. The
            commands `sinkablate fit --help model.backbone` and `--help model.backbone.attention` describe them.

    Returns:
        The model, in training mode on the CPU.

    Raises:
        UserError: The model or an option is unknown, or the options contradict each other.

    Example::

        model = sa.create_model("vit_small_patch16_224", gate="headwise", registers=4)
        loss = torch.nn.functional.cross_entropy(model(images), labels)
    """
    groups: dict[str, dict[str, Any]] = {"backbone": {}, "attention": {}, "pathway": {}}
    for key, value in options.items():
        if key not in OPTIONS:
            raise UserError(f"{key}={value}: create_model has no such option{did_you_mean(key, OPTIONS)}")
        group, field = OPTIONS[key]
        require_type(value, get_type_hints(CONFIGS[group])[field.name], key)
        groups[group][field.name] = tuple(value) if isinstance(value, list) else value
    require_at_least(num_classes, 0, "num_classes")
    require_at_least(in_chans, 1, "in_chans")
    require_at_least(test_time_registers, 0, "test_time_registers")
    config = BackboneConfig(
        name=name,
        pretrained=names_location(name) and "checkpoint" not in options if pretrained is None else pretrained,
        attention=AttentionConfig(**groups["attention"]),
        pathway=PathwayConfig(**groups["pathway"]),
        **groups["backbone"],
    )
    exported = exported_model(name)
    if exported is not None:
        classes, channels, size = exported.num_classes, exported.in_chans, exported.img_size
    else:
        classes, channels, size = _defaults(name)
    model = build_backbone(
        config,
        num_classes=classes if num_classes is None else num_classes,
        in_chans=channels if in_chans is None else in_chans,
        img_size=config.img_size or size,
        seed=seed,
    )
    if exported is not None:
        setattr(model, OWN_TRANSFORM, eval_transform(replace(exported.image, size=config.img_size or size)))
    return add_test_time_registers(model, count=test_time_registers) if test_time_registers else model


def _defaults(name: str) -> tuple[int, int, ImageSize]:
    """Return timm's number of classes, input channels and image size for a model.

    Raises:
        ConfigError: There is no such model.
    """
    cfg = named_model(name).cfg
    channels, height, width = cfg["input_size"]
    return cfg["num_classes"], channels, image_size(height, width)


def _parameter(key: str, field: Field[Any]) -> Parameter:
    default = (
        field.default_factory() if field.default is MISSING and field.default_factory is not MISSING else field.default
    )
    return Parameter(key, Parameter.KEYWORD_ONLY, default=default, annotation=field.type)


_own = Signature.from_callable(create_model, eval_str=False)
create_model.__signature__ = _own.replace(  # type: ignore[attr-defined]  # what help() and notebooks complete
    parameters=[
        *(parameter for parameter in _own.parameters.values() if parameter.kind is not Parameter.VAR_KEYWORD),
        *(_parameter(key, field) for key, (_, field) in OPTIONS.items()),
    ]
)

"""What was added to a model with pretrained weights: a gate, registers, a sink, another score or a pathway."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from sinkablate.config import AttentionConfig, BackboneConfig, PathwayConfig


@dataclass(frozen=True)
class Additions:
    """What was added to a model when it loaded pretrained weights; the attribute `additions` of such a model."""

    names: tuple[str, ...]
    """Each mechanism in words, such as `headwise gate`; empty if the model only has another classifier, or none."""
    parameters: frozenset[str]
    """Names of the parameters that the weights do not include: those of the mechanisms, and a new classifier."""
    unchanged: Callable[[], nn.Module]
    """Builds the model with the same weights and without these mechanisms."""


def additions_of(model: nn.Module) -> Additions | None:
    """Return what was added to the pretrained weights of a model; None if its weights are those of a run or random."""
    additions = getattr(model, "additions", None)
    return additions if isinstance(additions, Additions) else None


def names_of_additions(config: BackboneConfig, source: VisionTransformer) -> tuple[str, ...]:
    """Name the mechanisms that a configuration adds to a model with pretrained weights.

    Args:
        config: The variant.
        source: The model as it was loaded, whose own registers are not additions.
    """
    attention, registers = config.attention, config.registers or 0
    names = {
        f"{attention.score} score": attention.score != "softmax",
        f"{attention.sink} sink": attention.sink != "none",
        f"{attention.gate} gate": attention.gate != "none",
        f"{registers} register{'' if registers == 1 else 's'}": registers > source.num_reg_tokens,
        f"{config.pathway.kind} pathway": config.pathway.kind != "none",
    }
    return tuple(name for name, is_added in names.items() if is_added)


def without_additions(config: BackboneConfig) -> BackboneConfig:
    """Return the configuration of the same model with the same weights and without mechanisms."""
    return replace(
        config,
        registers=None,
        register_pos_embed=False,
        register_init_std=BackboneConfig.register_init_std,
        layers="all",
        attention=AttentionConfig(),
        pathway=PathwayConfig(),
    )

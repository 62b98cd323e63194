"""All valid mechanisms, small models of them, and the named variants."""

from itertools import combinations, product
from typing import Any, get_args

import torch
from torch import Tensor, nn

from sinkablate.attention.exponential import POINTWISE_LOG
from sinkablate.config import AttentionConfig, BackboneConfig, Gate, GatePosition, PathwayConfig
from sinkablate.config.mechanisms import SCORES, SINKS
from sinkablate.errors import UserError
from sinkablate.vit.backbone import build_backbone

SMALL = {"name": "vit_mini", "depth": 2, "embed_dim": 40, "qkv_bias": True, "patch_size": 7}
"""Head width 10, which is not a multiple of 8, so that the fused learned sink has to pad."""

VARIANTS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "gate": {"attention": AttentionConfig(gate="headwise")},
    "gate_elementwise": {"attention": AttentionConfig(gate="elementwise")},
    "gate_value": {"attention": AttentionConfig(gate="headwise", gate_position="value")},
    "reg": {"registers": 4},
    "reg2": {"registers": 2},
    "gate_reg": {"registers": 4, "attention": AttentionConfig(gate="headwise")},
    "reg_pos": {"registers": 4, "register_pos_embed": True, "register_init_std": 0.02},
    "kv_bias": {"attention": AttentionConfig(sink="kv_bias")},
    "learned": {"attention": AttentionConfig(sink="learned")},
    "sigmoid_learned": {"attention": AttentionConfig(score="sigmoid", sigmoid_bias="learned")},
    "pathway": {"pathway": PathwayConfig(kind="global")},
    "layerscale": {"init_values": 1e-5},
    "matched": {"match_parameters": "elementwise"},
}


def mechanisms() -> dict[str, BackboneConfig]:
    """Every combination of the axes that `AttentionConfig` accepts, with and without registers."""
    configs = {}
    axes = (tuple(SCORES), tuple(SINKS), get_args(Gate), get_args(GatePosition), ("log_n", "learned"), (0, 2))
    for score, sink, gate, position, bias, registers in product(*axes):
        try:
            config = AttentionConfig(score=score, sink=sink, gate=gate, gate_position=position, sigmoid_bias=bias)
        except UserError:
            continue
        name = f"{score}-{sink}-{gate}-{position}-{bias}-{registers}"
        configs[name] = BackboneConfig(**SMALL, registers=registers, attention=config)
    return configs


def flex_forms(polynomial_power: int, **pointwise: float) -> list[dict[str, Any]]:
    """Fields of `AttentionConfig` of every mechanism that FlexAttention computes.

    Args:
        polynomial_power: The second power, an even one; the first is the default, an odd one.
        pointwise: Fields of the pointwise scores.
    """
    return [
        {"sink": "zero"},
        {"sink": "learned"},
        {"score": "relu"},
        {"score": "sigmoid"},
        {"score": "sigmoid", "sigmoid_bias": "learned"},
        {"score": "polynomial"},
        {"score": "polynomial", "polynomial_power": polynomial_power},
        *({"score": "pointwise", "pointwise_function": name, **pointwise} for name in POINTWISE_LOG),
    ]


def in_pairs(configs: dict[str, BackboneConfig]) -> dict[str, BackboneConfig]:
    """Select a few mechanisms that contain every compatible pair of values of two axes at least once."""
    pairs = {name: set(combinations(enumerate(name.split("-")), 2)) for name in configs}
    missing, chosen = set().union(*pairs.values()), {}
    while missing:
        name = max(pairs, key=lambda candidate: len(pairs[candidate] & missing))
        chosen[name] = configs[name]
        missing -= pairs[name]
    return chosen


def make(
    config: BackboneConfig | dict[str, Any] | None = None, *, seed: int = 0, num_classes: int = 10, **fields: Any
) -> Any:
    """Build a small model for images of 28 pixels and one channel."""
    if not isinstance(config, BackboneConfig):
        config = BackboneConfig(**{**SMALL, **(config or {}), **fields})
    return build_backbone(config, num_classes=num_classes, in_chans=1, img_size=28, seed=seed)


@torch.no_grad()
def perturbed(model: nn.Module, seed: int = 0) -> Any:
    """Scale weights by five and randomize vectors (biases, norms, LayerScale, sinks), so that no term is neutral."""
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if p.ndim == 2 and "gate" not in name:
            p.mul_(5)
        elif p.ndim < 2 or "gate" in name or "sink" in name:
            p.add_(0.3 * torch.randn(p.shape, generator=g).to(p))
    return model


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers from a separate generator."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def set_fused(model: nn.Module, fused: bool) -> None:
    """Allow or forbid fused attention in every block."""
    for block in model.blocks:  # type: ignore[union-attr]
        block.attn.fused_attn = fused

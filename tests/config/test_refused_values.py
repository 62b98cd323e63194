"""The config classes themselves, without the parser, refuse invalid values."""

import math
from dataclasses import fields
from typing import Any, get_type_hints

import pytest

from sinkablate import config
from sinkablate.config import (
    AttentionConfig,
    AugmentConfig,
    BackboneConfig,
    ImageConfig,
    LeJepaConfig,
    PathwayConfig,
    SourceConfig,
    ToyConfig,
    ViewsConfig,
)
from sinkablate.errors import UserError
from sinkablate.toys.data import ToyData

CLASSES = [cls for name in config.__all__ if name.endswith("Config") and isinstance(cls := getattr(config, name), type)]
FLOATS = [
    (cls, field.name) for cls in CLASSES for field in fields(cls) if "float" in str(get_type_hints(cls)[field.name])
]
VALUES: list[tuple[type, dict[str, Any], str]] = [
    *(
        (BackboneConfig, {name: 10**9}, f"{name} must be at most")
        for name in ("depth", "embed_dim", "num_heads", "mlp_ratio", "registers", "img_size")
    ),
    (BackboneConfig, {"depth": 2**63}, "depth must fit into 64 bits"),
    (BackboneConfig, {"mlp_ratio": -1.0}, "mlp_ratio must be at least 0"),
    (BackboneConfig, {"class_token": False, "global_pool": "token"}, "class_token=false leaves"),
    (PathwayConfig, {"kind": "global", "width": 10**9}, "width must be at most"),
    (SourceConfig, {"num_classes": 2**33}, "num_classes must be at most 1,000,000"),
    (SourceConfig, {"num_classes": 0}, "num_classes must be at least 1"),
    (ImageConfig, {"size": 10**6}, "size must be at most"),
    (ImageConfig, {"std": (math.inf,)}, "std must be a finite number"),
    (AugmentConfig, {"scale": (0.5, 9.0)}, "scale is a share of the area"),
    (AugmentConfig, {"aug_repeats": 10**9}, "aug_repeats must be at most"),
    (AugmentConfig, {"auto_augment": "v0"}, "auto_augment=v0"),
    (ViewsConfig, {"count": 10**9}, "count must be at most"),
    (ViewsConfig, {"jitter": (1.0, 1.0, 1.0, 0.6)}, "jitter must"),
    (ViewsConfig, {"jitter": (-1.0, 1.0, 1.0, 0.1)}, "jitter must"),
    *(
        (LeJepaConfig, {name: 10**9}, f"{name} must be at most")
        for name in ("num_slices", "proj_hidden_dim", "proj_dim")
    ),
    (AttentionConfig, {"gate": "headwise", "gate_init_bias": 1e308}, "gate_init_bias must be"),
    (ToyData, {"eval_size": 10**11}, "data.eval_size must be at most"),
    *((ToyConfig, {name: 10**9}, f"{name} must be at most") for name in ("tokens", "width", "registers")),
]
GATED = {"gate": "headwise"}
NEEDED: dict[tuple[type, str], dict[str, Any]] = {
    (AttentionConfig, "gate_init_std"): GATED,
    (AttentionConfig, "gate_init_bias"): GATED,
    (AttentionConfig, "clip_zeta"): {"score": "clipped_softmax"},
    (AttentionConfig, "clip_alpha"): {"score": "clipped_softmax"},
}
"""Other fields that must be set for a field to have an effect."""


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(("cls", "name"), FLOATS, ids=lambda part: getattr(part, "__name__", part))
def test_a_config_refuses_nan_and_infinity(cls: type, name: str, value: float) -> None:
    default = next(field.default for field in fields(cls) if field.name == name)
    invalid = (value, *default[1:]) if isinstance(default, tuple) else value
    with pytest.raises(UserError, match=rf"^{name} must be a finite number, got (nan|inf)"):
        cls(**NEEDED.get((cls, name), {}), **{name: invalid})


@pytest.mark.parametrize(("cls", "values", "message"), VALUES, ids=lambda x: str(x) if isinstance(x, dict) else "")
def test_a_config_refuses_an_impossible_value(cls: type, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        cls(**values)
    assert str(error.value).startswith(message)

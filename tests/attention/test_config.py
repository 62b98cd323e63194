"""Illegal combinations are refused with the key, relative to the config class."""

import re
from dataclasses import asdict
from typing import Any

import jsonargparse
import pytest
import yaml

from sinkablate.config import AttentionConfig, BackboneConfig, EmaConfig, LossConfig, OptimConfig, build
from sinkablate.errors import UserError

GATE = AttentionConfig(gate="headwise")

REFUSED: list[tuple[type, dict[str, Any], str]] = [
    *(
        (AttentionConfig, {"sink": sink, "score": score}, f"sink={sink}")
        for sink in ("zero", "learned", "kv_bias")
        for score in ("clipped_softmax", "relu", "pointwise", "polynomial", "sigmoid")
    ),
    (AttentionConfig, {"gate_frozen": True}, "gate_frozen=true"),
    (AttentionConfig, {"gate_position": "value"}, "gate_position=value"),
    (AttentionConfig, {"gate_init_std": 0.1}, "gate_init_std=0.1 has no effect with gate=none"),
    (AttentionConfig, {"gate_init_bias": 0.0}, "gate_init_bias=0.0 has no effect"),
    (AttentionConfig, {"gate_start": "identity"}, "gate_start=identity has no effect with gate=none"),
    (
        AttentionConfig,
        {"gate": "headwise", "gate_start": "identity", "gate_init_std": 0.0},
        "gate_init_std=0.0 has no effect",
    ),
    (AttentionConfig, {"gate": "headwise", "gate_start": "identity", "gate_init_bias": -11.0}, "gate_start=identity"),
    (AttentionConfig, {"clip_zeta": 1.1}, "clip_zeta=1.1 has no effect with score=softmax"),
    (AttentionConfig, {"clip_alpha": 0.5, "score": "relu"}, "clip_alpha=0.5 has no effect"),
    (AttentionConfig, {"pointwise_function": "gelu"}, "pointwise_function=gelu has no effect"),
    (AttentionConfig, {"pointwise_alpha": 0.5, "score": "sigmoid"}, "pointwise_alpha=0.5 has no effect"),
    (AttentionConfig, {"polynomial_power": 5}, "polynomial_power=5 has no effect"),
    (AttentionConfig, {"sigmoid_bias": "learned"}, "sigmoid_bias=learned has no effect"),
    (AttentionConfig, {"gate": "headwise", "gate_init_std": -1.0}, "gate_init_std must"),
    (AttentionConfig, {"gate": "headwise", "gate_init_std": float("nan")}, "gate_init_std must"),
    (AttentionConfig, {"gate": "headwise", "gate_init_bias": float("inf")}, "gate_init_bias must"),
    (AttentionConfig, {"score": "clipped_softmax", "clip_zeta": 0.9}, "clip_zeta must"),
    (AttentionConfig, {"score": "clipped_softmax", "clip_alpha": -0.03}, "clip_alpha must"),
    (AttentionConfig, {"score": "pointwise", "pointwise_alpha": 1.5}, "pointwise_alpha must"),
    (AttentionConfig, {"score": "polynomial", "polynomial_power": 0}, "polynomial_power must"),
    (BackboneConfig, {"name": ""}, "name must"),
    *(
        (BackboneConfig, {name: 0}, f"{name} must")
        for name in ("img_size", "embed_dim", "depth", "num_heads", "patch_size")
    ),
    *(
        (BackboneConfig, {name: 1.0}, f"{name} must")
        for name in ("drop_path_rate", "drop_rate", "proj_drop_rate", "attn_drop_rate")
    ),
    (BackboneConfig, {"registers": -1}, "registers must"),
    (BackboneConfig, {"register_pos_embed": True}, "register_pos_embed=true needs registers"),
    (BackboneConfig, {"registers": 0, "register_pos_embed": True}, "register_pos_embed=true"),
    (BackboneConfig, {"registers": 2, "register_init_std": -1.0}, "register_init_std must"),
    (BackboneConfig, {"pretrained": True, "checkpoint": "x.pt"}, "pretrained and checkpoint"),
    (BackboneConfig, {"match_parameters": "headwise", "attention": GATE}, "match_parameters=headwise"),
    (BackboneConfig, {"fixed_sincos": True, "registers": 2, "register_pos_embed": True}, "fixed_sincos"),
    (BackboneConfig, {"layers": ()}, "layers must"),
    (BackboneConfig, {"layers": (1,)}, "layers=[1] has no effect"),
    (OptimConfig, {"lr": 0.0}, "lr must"),
    (OptimConfig, {"weight_decay": -0.1}, "weight_decay must"),
    (OptimConfig, {"betas": (0.9, 1.0)}, "betas must"),
    (OptimConfig, {"layer_decay": 1.5}, "layer_decay must"),
    (OptimConfig, {"warmup_steps": -1}, "warmup_steps must"),
    (OptimConfig, {"lr": 0.1, "min_lr": 0.2}, "min_lr must"),
    (LossConfig, {"smoothing": 1.0}, "smoothing must"),
    (LossConfig, {"cutmix": -1.0}, "cutmix must"),
    (LossConfig, {"mixup_prob": 1.1}, "mixup_prob must"),
    (EmaConfig, {"decay": 1.0}, "decay must"),
    (EmaConfig, {"warmup": True}, "warmup=true has no effect"),
]


@pytest.mark.parametrize(("cls", "fields", "says"), REFUSED, ids=lambda x: str(x) if isinstance(x, dict) else "")
def test_illegal_combinations_are_refused_with_the_key(cls: type, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(says)}"):
        cls(**fields)


def test_configs_round_trip_through_plain_values() -> None:
    config = BackboneConfig(registers=4, layers=(-1,), attention=AttentionConfig(gate="headwise"))
    plain = asdict(config)
    assert build(BackboneConfig, plain) == config
    plain["attention"]["gate"] = "none"
    with pytest.raises(UserError, match=re.escape("layers=[-1] has no effect")):
        build(BackboneConfig, plain)


@pytest.mark.parametrize(("power", "accepted"), [("3", True), ("2.5", False), ("3.0", False), ("null", False)])
def test_powers_must_be_integers_on_the_command_line(power: str, accepted: bool) -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(AttentionConfig, "attention")
    arguments = ["--attention.score=polynomial", f"--attention.polynomial_power={power}"]
    if accepted:
        assert parser.parse_args(arguments).attention.polynomial_power == yaml.safe_load(power)
    else:
        with pytest.raises(jsonargparse.ArgumentError, match="polynomial_power"):
            parser.parse_args(arguments)

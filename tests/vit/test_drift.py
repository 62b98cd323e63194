"""How much mechanisms change the output of pretrained weights, and which parameters they add."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from variants import SMALL, make, noise, perturbed

from sinkablate.config import AttentionConfig, BackboneConfig, PathwayConfig
from sinkablate.vit.additions import Additions, additions_of
from sinkablate.vit.drift import drift, drift_sentence

IMAGES = noise(3, 1, 28, 28)
GATE = AttentionConfig(gate="headwise")
ADDED: dict[str, tuple[dict[str, Any], tuple[str, ...], set[str]]] = {
    "gate": ({"attention": GATE}, ("headwise gate",), {"attn.gate.weight", "attn.gate.bias"}),
    "registers": ({"registers": 1}, ("1 register",), {"reg_token"}),
    "sink": ({"attention": AttentionConfig(sink="learned")}, ("learned sink",), {"attn.core.sink_logit"}),
    "score": ({"attention": AttentionConfig(score="relu")}, ("relu score",), set()),
    "pathway": (
        {"pathway": PathwayConfig(kind="global")},
        ("global pathway",),
        {f"pathway.{name}" for name in ("pool.weight", "value.weight", "proj.weight", "gate.weight", "gate.bias")},
    ),
    "both": (
        {"attention": GATE, "registers": 4},
        ("headwise gate", "4 registers"),
        {"reg_token", "attn.gate.weight", "attn.gate.bias"},
    ),
    "nothing": ({}, (), set()),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small model without mechanisms, in timm's format."""
    path = tmp_path_factory.mktemp("weights") / "plain.pt"
    torch.save(perturbed(make()).state_dict(), path)
    return path


def changed(weights: Path, **fields: Any) -> tuple[nn.Module, Additions]:
    """A model with pretrained weights and mechanisms, and what was added to it."""
    model: nn.Module = make(checkpoint=str(weights), **fields)
    additions = additions_of(model)
    assert additions is not None
    return model, additions


@pytest.mark.parametrize("name", ADDED)
def test_additions_are_named_with_their_parameters(weights: Path, name: str) -> None:
    fields, names, parameters = ADDED[name]
    _, additions = changed(weights, **fields)
    assert additions.names == names
    assert {parameter.split(".", 2)[-1] for parameter in additions.parameters} == parameters
    plain = torch.load(weights, weights_only=True)
    assert {key: p.shape for key, p in additions.unchanged().state_dict().items()} == {
        key: p.shape for key, p in plain.items()
    }


def test_a_new_classifier_is_added_but_changes_no_token(weights: Path) -> None:
    model = make(checkpoint=str(weights), num_classes=7)
    additions = additions_of(model)
    assert additions is not None
    assert (additions.names, additions.parameters) == ((), {"head.weight", "head.bias"})


def test_nothing_is_added_to_random_weights_and_those_of_a_run(weights: Path, tmp_path: Path) -> None:
    assert additions_of(make(attention=GATE)) is None
    state = {f"backbone.{name}": p for name, p in make(attention=GATE).state_dict().items()}
    saved = {"backbone": asdict(BackboneConfig(**SMALL, attention=GATE))}
    torch.save({"state_dict": state, "hyper_parameters": saved}, tmp_path / "run.ckpt")
    assert additions_of(make(attention=GATE, checkpoint=str(tmp_path / "run.ckpt"))) is None


@pytest.mark.parametrize("name", ADDED)
def test_drift_is_the_relative_change_of_the_tokens_that_both_models_have(weights: Path, name: str) -> None:
    """Compared with a direct computation; dropout, which training mode would apply, has no effect."""
    model, additions = changed(weights, **ADDED[name][0], proj_drop_rate=0.5)
    model.train()
    numbers = drift(model, additions.unchanged(), IMAGES)
    assert model.training
    registers = getattr(model, "num_reg_tokens", 0)
    with torch.no_grad():
        after, before = (m.double().eval().forward_features(IMAGES.double()) for m in (model, additions.unchanged()))  # type: ignore[operator]
    after = torch.cat((after[:, :1], after[:, 1 + registers :]), dim=1)
    for kind, part in {"tokens": slice(None), "cls": slice(0, 1), "patches": slice(1, None)}.items():
        expected = (after - before)[:, part].square().sum() / before[:, part].square().sum()
        assert numbers[kind] == pytest.approx(float(expected.sqrt()), rel=1e-12)
    assert (numbers["tokens"] > 1e-6) == (name != "nothing")


def test_a_gate_that_starts_as_the_identity_does_not_drift(weights: Path) -> None:
    model, additions = changed(weights, attention=AttentionConfig(gate="elementwise", gate_start="identity"))
    assert drift(model, additions.unchanged(), IMAGES)["tokens"] <= 1e-7


def test_a_model_without_a_class_token_has_no_drift_of_one(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"class_token": False, "global_pool": "avg"}
    torch.save(make(**fields).state_dict(), tmp_path / "plain.pt")
    model, additions = changed(tmp_path / "plain.pt", attention=GATE, **fields)
    numbers = drift(model, additions.unchanged(), IMAGES)
    assert set(numbers) == {"tokens", "patches"}
    assert numbers["tokens"] == numbers["patches"]


def test_a_large_change_is_a_warning() -> None:
    small = {"added": ["headwise gate"], "images": 8, "tokens": 1.4e-6, "cls": 0.0, "patches": 0.002}
    assert drift_sentence(small) == (
        "headwise gate changed the final tokens of the pretrained model by 1.4e-06 at step 0 "
        "(cls 0.0e+00, patches 0.2%; 8 images)"
    )
    large = {"added": ["headwise gate", "4 registers"], "images": 8, "tokens": 0.1234, "patches": 0.1234}
    assert drift_sentence(large) == (
        "warning: headwise gate and 4 registers changed the final tokens of the pretrained model by 12.3% at step 0 "
        "(patches 12.3%; 8 images)"
    )

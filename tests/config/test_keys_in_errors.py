"""An error names the key that was set, wherever the config class is used."""

import re
from pathlib import Path
from typing import Any

import pytest
from running import run
from sweeping import content, sweep, written

from sinkablate.config import (
    AttentionConfig,
    BackboneConfig,
    ConfigError,
    ThresholdConfig,
    ToyConfig,
    build,
    keys_below,
)
from sinkablate.errors import first_line, shortened

SINK = "sink=zero needs score=softmax, got score=relu"
RELU_SINK = {"score": "relu", "sink": "zero"}


def test_remedies_are_options_where_the_key_is_known() -> None:
    with pytest.raises(ConfigError, match=r"^model.name=x: use --model.checkpoint=FILE$"), keys_below("model"):
        raise ConfigError("name=x: use checkpoint=FILE", remedies=("checkpoint=FILE",))


def test_a_long_message_is_cut_between_sentences_or_words() -> None:
    assert first_line(ValueError(f"Short. {'word ' * 60}")) == "Short"
    assert re.fullmatch(r"(word )+…", shortened("word " * 60))
    assert shortened("x" * 200) == "x" * 200


def test_in_python_keys_are_relative_to_the_class() -> None:
    with pytest.raises(ConfigError, match=f"^{SINK}$"):
        AttentionConfig(**RELU_SINK)
    with pytest.raises(ConfigError, match=r"^nop_max must lie in"):
        ThresholdConfig(nop_max=0.9)


@pytest.mark.parametrize(
    ("cls", "values", "key", "message"),
    [
        (ToyConfig, {"attention": RELU_SINK}, "model.toy", f"model.toy.attention.{SINK}"),
        (BackboneConfig, {"attention": RELU_SINK}, "model.backbone", f"model.backbone.attention.{SINK}"),
        (BackboneConfig, {"attention": RELU_SINK}, "", f"attention.{SINK}"),
        (BackboneConfig, {"depth": 0}, "model.backbone", "model.backbone.depth must be positive, got 0"),
    ],
)
def test_build_adds_the_key_of_the_group(cls: type, values: dict[str, Any], key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        build(cls, values, key)


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(ValueError, match=r"^plain$"), keys_below("model"):
        raise ValueError("plain")


@pytest.mark.parametrize("group", ["model.toy", "model.backbone"])
def test_fit_names_the_full_key(group: str, tmp_path: Path) -> None:
    words = [f"--{group}.attention.{key}={value}" for key, value in RELU_SINK.items()]
    task = "toy" if group == "model.toy" else "classify"
    outcome = run("fit", f"--task={task}", *words, "--run_dir", tmp_path / "run", "--wandb.mode=disabled")
    assert (outcome.code, outcome.err) == (2, f"error: {group}.attention.{SINK}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--backbone.name=vit_mini --backbone.img_size=-1", "backbone.img_size must be positive, got -1"),
        ("--backbone.name=vit_minx", "backbone.name=vit_minx: timm has no such model"),
        ("--backbone.name=vit_mini --backbone.checkpoint=no.pt", "backbone.checkpoint=no.pt: no such file"),
        ("--thresholds.nop_max=0.9", "thresholds.nop_max must lie in [0, broadcast_min), got 0.9"),
    ],
)
def test_diagnose_names_its_own_keys(words: str, message: str, tmp_path: Path) -> None:
    outcome = run("diagnose", *words.split(), "--images", "builtin", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {message}")
    assert len(outcome.err.splitlines()) == 1


def test_a_sweep_names_the_full_key(tmp_path: Path) -> None:
    values = {f"model.backbone.attention.{key}": {"values": [value]} for key, value in RELU_SINK.items()}
    outcome = sweep("plan", written(tmp_path, content(values | {"seed_everything": {"values": [0, 1]}})))
    assert outcome.code == 2
    assert f"model.backbone.attention.{SINK}" in outcome.err

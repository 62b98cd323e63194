"""How weights were read: every command that measures prints it once, and stores it."""

import shutil
from pathlib import Path

import pytest
import torch
from evaluating import folder_data, numbers
from running import Outcome, run, summary
from variants import perturbed

from sinkablate.config import BackboneConfig
from sinkablate.vit.backbone import build_backbone

NAME = ("--backbone.name", "vit_mini")
COMMANDS = ["evaluate", *(pytest.param(name, marks=pytest.mark.heavy) for name in ("diagnose", "intervene"))]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a moving average in half precision, whose names have a prefix."""
    state = perturbed(build_backbone(BackboneConfig())).state_dict()
    average = {f"module.{name}": value.half() for name, value in state.items()}
    path = tmp_path_factory.mktemp("weights") / "x.pth"
    torch.save({"state_dict": state, "state_dict_ema": average}, path)
    return path


def inputs(command: str, images: Path) -> tuple[str | Path, ...]:
    """The options with which a command reads few images."""
    if command == "evaluate":
        return (*folder_data(images), "--tasks", "knn", "--floors", "false", "--device", "cpu")
    few = ("--images", images / "val", "--limit", "2", "--min_side", "1")
    return few if command == "diagnose" else (*few, "--heads", "1:0", "--edits", "zero_value", "--control_images", "2")


def stored(command: str, out: Path) -> dict[str, object]:
    return numbers(out) if command == "evaluate" else summary(out)


def printed(outcome: Outcome, sentence: str) -> int:
    """How often a sentence was printed."""
    return (outcome.succeeded().out + outcome.err).count(sentence)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_was_decided_is_printed_once_and_stored(
    command: str, weights: Path, image_folder: Path, tmp_path: Path
) -> None:
    file, out = Path(shutil.copy(weights, tmp_path)), tmp_path / "out"
    words = (*NAME, "--backbone.checkpoint", file, "--backbone.img_size", "42", *inputs(command, image_folder))
    outcome = run(command, *words, "--out", out)
    for sentence in (
        f"state_dict_ema was read from {file}, which also contains state_dict; choose with checkpoint_key",
        "the prefix module. was removed from the names of the weights",
        "the weights are stored in float16 and used in float32",
        "position embedding",
    ):
        assert printed(outcome, sentence) == 1, sentence
    content = stored(command, out)
    loading = content["loading"]
    assert isinstance(loading, dict)
    assert (loading["key"], loading["prefix"], loading["dtypes"]) == ("state_dict_ema", "module.", ["float16"])
    assert "position_embedding" in content
    state = torch.load(file)
    state["state_dict_ema"]["module.norm.bias"] += 1
    torch.save(state, file)
    refused = run(command, *words, "--out", out)
    assert refused.code == 2
    assert "weights_sha256" in refused.err.splitlines()[-1]  # after how the weights were read


@pytest.mark.parametrize("command", COMMANDS)
def test_random_weights_are_said(command: str, image_folder: Path, tmp_path: Path) -> None:
    words = (*NAME, "--backbone.pretrained", "false", *inputs(command, image_folder))
    outcome = run(command, *words, "--out", tmp_path)
    assert printed(outcome, "the weights are random (backbone.pretrained=false)\n") == 1
    assert stored(command, tmp_path)["weights"] == "random"

"""Weights as training scripts save them: nested, prefixed, averaged, in half precision, and next to other objects."""

import argparse
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from variants import perturbed

from sinkablate.config import BackboneConfig
from sinkablate.errors import UserError
from sinkablate.vit.backbone import build_backbone
from sinkablate.vit.checkpoint_files import read_checkpoint

NAME = "vit_tiny_patch16_224"
State = dict[str, Tensor]


def load(path: Path, key: str | None = None, num_classes: int | None = None, **fields: Any) -> Any:
    config = BackboneConfig(name=NAME, depth=1, checkpoint=str(path), checkpoint_key=key, **fields)
    return build_backbone(config, num_classes=num_classes, in_chans=3, img_size=32)


def drawn(seed: int) -> State:
    torch.manual_seed(seed)
    return dict(perturbed(timm.create_model(NAME, depth=1, img_size=32, num_classes=3)).state_dict())


@pytest.fixture(scope="module")
def state() -> State:
    return drawn(0)


@pytest.fixture(scope="module")
def other() -> State:
    """Weights that must not be taken."""
    return drawn(1)


def renamed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def assert_loaded(model: Any, state: State) -> None:
    assert model.num_classes == 3
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, state[name]), name


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "model.",
        "backbone.",
        "encoder.",
        "teacher.",
        "student.",
        "module._orig_mod.",
        "model.vit.",
    ],
)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_prefix_of_all_names_is_removed_and_reported(state: State, tmp_path: Path, prefix: str, suffix: str) -> None:
    path, content = tmp_path / f"x.{suffix}", renamed(state, prefix)
    save_file(content, path) if suffix == "safetensors" else torch.save(content, path)
    model = load(path)
    assert_loaded(model, state)
    assert model.weights_origin.prefix == prefix
    assert model.weights_origin.sentences == [f"the prefix {prefix} was removed from the names of the weights"]


@pytest.mark.parametrize("keys", [("state_dict",), ("model",), ("module",), ("model", "state_dict"), ("teacher",)])
def test_nested_weights_are_found(state: State, tmp_path: Path, keys: tuple[str, ...]) -> None:
    content: Any = {**state}
    for key in reversed(keys):
        moments = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
        content = {key: content, "optimizer": moments, "epoch": 3}
    torch.save(content, path := tmp_path / "x.pth")
    model = load(path)
    assert_loaded(model, state)
    assert model.weights_origin.key == ".".join(keys)
    assert model.weights_origin.sentences == []


def test_a_projection_head_next_to_the_prefix_is_left_out_and_reported(state: State, tmp_path: Path) -> None:
    """A teacher of DINO: the backbone and its head."""
    head = {"head.mlp.0.weight": torch.ones(2, 2), "head.last_layer.weight_v": torch.ones(2, 2)}
    torch.save({"teacher": renamed(state, "backbone.") | head}, path := tmp_path / "x.pth")
    model = load(path)
    assert_loaded(model, state)
    assert model.weights_origin.unread == tuple(head)
    assert "not part of the model: 2 tensors (head.mlp.0.weight, " in " ".join(model.weights_origin.sentences)


@pytest.mark.parametrize(("average", "trained"), [("state_dict_ema", "state_dict"), ("model_ema", "model")])
def test_a_moving_average_is_taken_by_default_and_reported(
    state: State, other: State, tmp_path: Path, average: str, trained: str
) -> None:
    torch.save({trained: other, average: renamed(state, "module.")}, path := tmp_path / "x.pth")
    model = load(path)
    assert_loaded(model, state)
    assert model.weights_origin.sentences[0] == (
        f"{average} was read from {path}, which also contains {trained}; choose with checkpoint_key"
    )
    assert_loaded(load(path, trained), other)


def test_teacher_and_student_are_listed_and_chosen(state: State, other: State, tmp_path: Path) -> None:
    nested, flat = tmp_path / "nested.pth", tmp_path / "flat.pth"
    torch.save({"student": renamed(other, "module."), "teacher": state}, nested)
    torch.save({"state_dict": renamed(other, "student.backbone.") | renamed(state, "teacher.backbone.")}, flat)
    with pytest.raises(UserError, match=r"several weights: student, teacher; choose with checkpoint_key=NAME"):
        load(nested)
    with pytest.raises(UserError, match=r"prefixes: student.backbone., teacher.backbone.; choose with checkpoint_key"):
        load(flat)
    for path in (nested, flat):
        assert_loaded(model := load(path, "teacher"), state)
        assert model.weights_origin.others == ("student",)
        assert_loaded(load(path, "student"), other)
        with pytest.raises(UserError, match=r"checkpoint_key=teachr: .* contains .*student, teacher"):
            load(path, "teachr")


def test_a_key_needs_a_file() -> None:
    with pytest.raises(UserError, match="checkpoint_key needs checkpoint"):
        BackboneConfig(checkpoint_key="teacher")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_half_precision_is_used_in_float32_and_reported(
    state: State, tmp_path: Path, dtype: torch.dtype, suffix: str
) -> None:
    path, content = tmp_path / f"x.{suffix}", {name: value.to(dtype) for name, value in state.items()}
    save_file(content, path) if suffix == "safetensors" else torch.save(content, path)
    model = load(path)
    assert_loaded(model, {name: value.to(dtype).float() for name, value in state.items()})
    name = str(dtype).removeprefix("torch.")
    assert model.weights_origin.sentences == [f"the weights are stored in {name} and used in float32"]


class Config:
    """An object that a training script stores next to the weights."""


def test_python_objects_are_named_and_never_loaded(state: State, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    for stored, name in ((argparse.Namespace(lr=0.1), "argparse.Namespace"), (Config(), f"{Config.__module__}.Config")):
        torch.save({"model": state, "args": stored}, path)
        with pytest.raises(
            UserError, match=rf'Python objects \({name}\).*torch.save\(checkpoint\["model"\], NEW_FILE\)'
        ) as e:
            load(path)
        assert "\n" not in str(e.value)
        assert "weights_only" not in str(e.value)


def test_partly_matching_names_are_counted_with_examples(state: State, tmp_path: Path) -> None:
    total = len(state)
    content = {name: value for name, value in state.items() if "mlp" not in name} | {"extra.weight": torch.ones(1)}
    content["norm.bias"] = torch.ones(5)
    torch.save(content, path := tmp_path / "x.pth")
    with pytest.raises(UserError) as refusal:
        load(path)
    assert str(refusal.value) == (
        f"checkpoint={path} does not fit name={NAME}: {total - 5} of the {total} tensors of the model match; missing: "
        "blocks.0.mlp.fc1.weight, blocks.0.mlp.fc1.bias, blocks.0.mlp.fc2.weight, and 1 more; "
        "not in the model: extra.weight; other shapes: norm.bias (5) instead of (192)"
    )


def test_names_of_another_library_are_recognized(tmp_path: Path) -> None:
    content = {
        "vit.encoder.layer.0.attention.attention.query.weight": torch.ones(2, 2),
        "vit.layernorm.weight": torch.ones(2),
    }
    torch.save(content, path := tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"0 of the \d+ tensors of the model match.*of transformers.*--hf FOLDER"):
        load(path)


def test_the_file_may_change_after_loading(state: State, tmp_path: Path) -> None:
    """The parameters do not share memory with the file."""
    for path in (tmp_path / "x.pth", tmp_path / "x.safetensors"):
        save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
        model = load(path)
        path.write_bytes(bytes(path.stat().st_size))
        assert_loaded(model, state)


def test_a_mechanism_is_added_to_prefixed_weights(state: State, tmp_path: Path) -> None:
    torch.save(renamed(state, "module."), path := tmp_path / "x.pth")
    model = load(path, registers=2, num_classes=5)
    assert model.num_classes == 5
    assert model.num_reg_tokens == 2
    assert torch.equal(model.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])
    assert re.match("the prefix", model.weights_origin.sentences[0])


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(f"checkpoint={tmp_path}: a folder; name the file")):
        read_checkpoint(str(tmp_path))


def test_quantized_weights_are_refused(tmp_path: Path) -> None:
    """Integers without their scales would load as other numbers."""
    tensors = {"fc.weight": torch.ones(2, 2, dtype=torch.int8), "norm.weight": torch.ones(2), "index": torch.arange(3)}
    save_file(tensors, path := tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"fc\.weight is stored as int8, and quantized weights are not read"):
        read_checkpoint(str(path))
    save_file(tensors | {"fc.weight": torch.ones(2, 2)}, path)
    assert set(read_checkpoint(str(path)).weights) == set(tensors)

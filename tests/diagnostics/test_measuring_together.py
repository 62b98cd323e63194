"""Blocks that are measured together have the values of each, whatever happens between and around them."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from families import family, pictures
from test_without_waiting import assert_same, records
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode, _len_torch_function_stack
from variants import make, noise, perturbed

from sinkablate.attention import scores
from sinkablate.config import AttentionConfig, ThresholdConfig
from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.diagnostics.recorder import Recorder
from sinkablate.diagnostics.tap import NonfiniteError, Tap
from sinkablate.errors import UserError

T = ThresholdConfig()
FIELDS: list[dict[str, Any]] = [
    {"score": "relu"},
    {"score": "clipped_softmax"},
    {"score": "clipped_softmax", "clip_zeta": 1.1},
    {"sink": "learned"},
    {"gate": "headwise"},
    {"gate": "elementwise", "gate_position": "value"},
]


@pytest.mark.parametrize("layers", [(1, 2), (0, 3)])
@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_a_mechanism_in_some_layers_is_measured_like_each_block_by_itself(
    fields: dict[str, Any], layers: tuple[int, ...]
) -> None:
    model = perturbed(make(depth=4, layers=layers, attention=AttentionConfig(**fields))).eval().double()
    images = noise(3, 1, 28, 28).double()
    assert_same(records(model, images, memory_mib=0), records(model, images, memory_mib=4096), 1e-5)


def test_weights_that_sum_to_one_without_being_a_softmax_are_not_mixed_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = perturbed(make(depth=4, attention=AttentionConfig(gate="headwise"))).eval().double()
    explicit = dataclasses.replace(scores.SOFTMAX, is_softmax=False)
    for index in (1, 2):
        monkeypatch.setattr(model.blocks[index].attn.core, "score", explicit)
    images = noise(3, 1, 28, 28).double()
    assert_same(records(model, images, memory_mib=0), records(model, images, memory_mib=4096), 1e-5)


@pytest.mark.parametrize("inside", [False, True], ids=["around the measurement", "inside the model"])
def test_a_model_can_be_measured_in_inference_mode(inside: bool) -> None:
    model, images = make(depth=3).eval(), noise(2, 1, 28, 28)
    expected = records(model, images)
    if inside:
        for block in model.blocks:
            block.forward = torch.inference_mode()(block.forward)
    with torch.inference_mode(not inside):
        assert_same(expected, records(model, images), 1e-6)


class Passing(TorchFunctionMode):
    """A mode that changes nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def test_a_mode_of_the_model_itself_stays_active_until_the_model_leaves_it() -> None:
    model = family("vit_tiny_patch16_224")
    forward, tops, mode = model.blocks[1].forward, [], Passing()

    def in_mode(x: Tensor) -> Tensor:
        with mode:
            y: Tensor = forward(x)
            tops.append(_get_current_function_mode())
        return y

    model.blocks[1].forward = in_mode
    with torch.device("cpu"):
        records(model, pictures(model))
        assert _len_torch_function_stack() == 1
    assert tops == [mode]


def test_a_failed_batch_leaves_no_mode_behind_and_the_next_batch_is_measured() -> None:
    model = family("vit_tiny_patch16_224")
    images, recorder = pictures(model), Recorder(T)
    expected = records(model, images)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with measurement_mode(model), Tap(model, recorder) as tap:
        for module in (model.blocks[1].attn.proj, model.blocks[1].mlp):
            handle = module.register_forward_hook(fail)
            with pytest.raises(ZeroDivisionError):
                tap.run(images)
            handle.remove()
            recorder.reset()
        assert _len_torch_function_stack() == 0
        tap.run(images)
        assert_same(expected, recorder.take(np.arange(2), images), 0)


def test_a_block_that_failed_its_check_is_checked_again() -> None:
    model = family("vit_tiny_patch16_224")
    images = pictures(model)
    damaged = images.clone()
    damaged[0, 0, 0, 0] = torch.nan
    with measurement_mode(model), Tap(model, Recorder(T)) as tap:
        with pytest.raises(NonfiniteError, match="block 0"):
            tap.run(damaged)
        assert not tap.rebuild_errors
        tap.consumer = Recorder(T)
        tap.run(images)
        assert 0 < max(tap.rebuild_errors.values()) < 1e-5


class ChangesItsInput(nn.Module):
    """An MLP that overwrites the input of its block."""

    def __init__(self, mlp: nn.Module, inputs: list[Tensor]) -> None:
        super().__init__()
        self.mlp, self.inputs = mlp, inputs

    def forward(self, x: Tensor) -> Tensor:
        self.inputs[-1].mul_(2)
        y: Tensor = self.mlp(x)
        return y


def test_a_block_that_overwrites_its_input_is_refused() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=0).eval()
    inputs: list[Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    model.blocks[0].mlp = ChangesItsInput(model.blocks[0].mlp, inputs)
    with pytest.raises(UserError, match="a block modifies its input"):
        records(model, noise(2, 3, 32, 32), memory_mib=0)


def test_a_mask_that_the_model_rewrites_for_every_block_is_read_for_every_block() -> None:
    model = family("vit_tiny_patch16_224", depth=3)
    images, shared = pictures(model), torch.empty(17, 17)
    distance = (torch.arange(17)[:, None] - torch.arange(17)).abs()

    def attention(index: int, attn: Any, reused: bool) -> Any:
        def forward(x: Tensor, **_: object) -> Tensor:
            batch, n, width = x.shape
            mask = torch.zeros(n, n).masked_fill_(distance > index + 1, -torch.inf)
            q, k, v = attn.qkv(x).reshape(batch, n, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=shared.copy_(mask) if reused else mask)
            y: Tensor = attn.proj(out.transpose(1, 2).reshape(batch, n, width))
            return y

        return forward

    measured = []
    for reused in (False, True):
        for index, block in enumerate(model.blocks):
            block.attn.forward = attention(index, block.attn, reused)
        measured.append(records(model, images, memory_mib=4096))
    assert_same(*measured, 0)

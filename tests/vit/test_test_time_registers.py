"""Test-time registers take over what the planted neurons write, exactly, and nothing else changes."""

import copy
from typing import Any

import pytest
import torch
from families import FAMILIES, family, hook_count, pictures
from hugging_face import MODELS, untrained
from planted_registers import GAINS, HEIGHTS, MARK, READER, TARGETS, WRITERS, Planted, planted
from tapping import tapped
from torch import Tensor
from variants import noise

from sinkablate.errors import UserError
from sinkablate.evaluate.backbones import model_digest
from sinkablate.vit.anatomy import blocks_of, features
from sinkablate.vit.resizing import resized
from sinkablate.vit.test_time_registers import add_registers, moved, require_supported
from sinkablate.vit.tokens import TokenLayout

NEURONS = {block: list(neurons) for block, neurons in WRITERS.items()}


@pytest.fixture(scope="module")
def case() -> Planted:
    return planted()


def edited(model: Any, count: int, neurons: dict[int, list[int]]) -> Any:
    """A copy of a model with test-time registers."""
    result = copy.deepcopy(model)
    require_supported(result)
    add_registers(result, count, neurons)
    return result


def outputs(model: Any, images: Tensor) -> list[Tensor]:
    """The output of every block, after the tap has checked its rebuild."""
    _, kept, errors = tapped(model, images)
    assert max(errors.values()) < 1e-5
    return kept


def entering(model: Any, images: Tensor) -> Tensor:
    """The input of the first block."""
    inputs: list[Tensor] = []
    handle = blocks_of(model)[0].register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        features(model, images)
    handle.remove()
    return inputs[0]


def activation(x: Tensor, neuron: int) -> Tensor:
    """What a planted neuron computes from tokens (..., D)."""
    normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    return GAINS[neuron] * (normed[..., MARK] - 1).relu()


@pytest.mark.parametrize("count", [1, 3])
def test_outliers_are_on_the_registers_and_nowhere_else(case: Planted, count: int) -> None:
    model = case.model
    patches = entering(model, case.images)[:, 1:]
    before, after = outputs(model, case.images), outputs(edited(model, count, NEURONS), case.images)
    marked = before[-1][:, 1:][case.marks]
    assert marked.norm(dim=-1).min() > 20 * before[-1][:, 1:][~case.marks].norm(dim=-1).max()
    for block, x in enumerate(after[:3]):  # all blocks before the reader
        assert torch.equal(x[:, 1 + count :], patches)  # no patch has moved at all
        assert torch.equal(x[:, 0], before[block][:, 0])
        expected = torch.zeros(len(x), x.shape[-1], dtype=torch.float64)
        for writer, neurons in WRITERS.items():
            for neuron in neurons if writer <= block else ():
                expected[:, TARGETS[neuron]] += HEIGHTS[neuron] * activation(patches, neuron).amax(1)
        torch.testing.assert_close(x[:, 1 : 1 + count], expected[:, None].expand(-1, count, -1), rtol=1e-12, atol=1e-12)
    assert after[-1][:, 1 + count :].norm(dim=-1).max() < 3
    assert after[-1][:, 1 : 1 + count].norm(dim=-1).min() > 40


def test_neurons_that_are_not_moved_still_write(case: Planted) -> None:
    before, after = outputs(case.model, case.images), outputs(edited(case.model, 1, {1: [11]}), case.images)
    patches = after[1][:, 2:]
    assert torch.equal(patches[..., TARGETS[5]], before[1][:, 1:, TARGETS[5]])
    assert before[1][:, 1:, TARGETS[11]].abs().max() > 20
    assert patches[..., TARGETS[11]].abs().max() < 1
    block = READER[0]
    written = after[block][:, 2:, 9] - after[block - 1][:, 2:, 9]
    assert torch.equal(written > 0, case.marks)  # a later neuron still reads what remains


def test_moved_takes_the_largest_absolute_value_with_its_sign() -> None:
    x = noise(2, 7, 5).double()  # one class token, two registers, four patches
    neurons = torch.tensor([4, 1])
    result = moved(x, neurons, num_cls=1, count=2)
    for image in range(2):
        for neuron in (4, 1):
            patches = x[image, 3:, neuron].tolist()
            largest = max(patches, key=abs)
            assert result[image, :, neuron].tolist() == [x[image, 0, neuron], largest, largest, 0, 0, 0, 0]
    untouched = [0, 2, 3]
    assert torch.equal(result[..., untouched], x[..., untouched])
    assert x[:, 3:, 4].abs().max() > 0  # the input is left as it was


@pytest.mark.parametrize("name", [name for name in FAMILIES if "reg4" not in name and "dinov3" not in name])
def test_families_of_timm(name: str) -> None:
    model, own = family(name), FAMILIES[name][1]
    images = pictures(model)
    if "distilled" in name or "beit" in name:
        with pytest.raises(UserError, match=r"builds its sequence of tokens in its own way"):
            require_supported(model)
        return
    changed = edited(model, 2, {0: [3, 5], 1: [0]})
    views, after, _ = tapped(changed, images)
    layout = TokenLayout(own.num_cls, 2, own.num_patches)
    assert views[0].layout == layout
    registers = slice(own.num_cls, own.num_cls + 2)
    stream, expected = entering(changed, images), entering(model, images)
    assert not stream[:, registers].any()  # also behind a norm of the embeddings
    assert torch.equal(stream[:, registers.stop :], expected[:, own.num_cls :])
    assert torch.equal(stream[:, : own.num_cls], expected[:, : own.num_cls])
    assert changed.forward_head(features(changed, images)).shape == model.forward_head(features(model, images)).shape
    assert not torch.allclose(after[-1][:, registers.stop :], tapped(model, images)[1][-1][:, own.num_cls :])


@pytest.mark.parametrize("name", ["ViT", "DeiT", "Dinov2", "Dinov2WithRegisters", "CLIPVision", "SiglipVision"])
def test_families_of_transformers(name: str) -> None:
    own = MODELS[name][1]
    model = untrained(name, **({"num_register_tokens": 0} if name == "Dinov2WithRegisters" else {}))
    images = noise(2, 3, 32, 32)
    changed = edited(model, 2, {0: [3, 5], 1: [0]})
    views, _, _ = tapped(changed, images)
    assert views[1].layout == TokenLayout(own.num_cls, 2, own.num_patches)
    stream = entering(changed, images)
    assert not stream[:, own.num_cls : own.num_cls + 2].any()
    assert torch.equal(stream[:, own.num_cls + 2 :], entering(model, images)[:, own.num_cls :])
    assert changed.state_dict().keys() == model.state_dict().keys()


def test_rotary_positions_stay_those_of_the_patches() -> None:
    """Queries and keys of the patches in the first block do not change, so neither do their rotations."""
    model = family("eva02_tiny_patch14_224")
    images = pictures(model)
    views, _, _ = tapped(model, images)
    changed, _, _ = tapped(edited(model, 2, {}), images)
    torch.testing.assert_close(changed[0].q[:, :, 3:], views[0].q[:, :, 1:])
    torch.testing.assert_close(changed[0].k[:, :, 3:], views[0].k[:, :, 1:])


def test_a_copy_has_hooks_of_its_own_and_another_digest(case: Planted) -> None:
    changed = edited(case.model, 1, NEURONS)
    twin = copy.deepcopy(changed)
    twin.test_time_registers.neurons1.fill_(0)
    assert changed.test_time_registers.neurons1.tolist() == NEURONS[1]
    assert not torch.equal(features(twin, case.images), features(changed, case.images))
    digests = {model_digest(x) for x in (case.model, changed, edited(case.model, 1, {1: [11]}))}
    assert len(digests) == 3
    assert hook_count(case.model) == 0


def test_other_sizes_resample_the_positions_of_patches_only() -> None:
    model = family("vit_tiny_patch16_224")
    images = noise(2, 3, 96, 96)
    plain, changed = (resized(x, 96).model for x in (model, edited(model, 1, {1: [4]})))
    assert torch.equal(entering(changed, images)[:, 2:], entering(plain, images)[:, 1:])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: family("vit_small_patch14_reg4_dinov2"), "has 4 registers of its own"),
        (lambda: untrained("DINOv3ViT"), "has 4 registers of its own"),
        (lambda: edited(planted().model, 1, {}), "has test-time registers already"),
    ],
)
def test_refusals(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"test_time_registers: .*{message}"):
        require_supported(make())


def test_gradients_pass_through_the_registers(case: Planted) -> None:
    model = edited(case.model, 1, NEURONS)
    features(model, case.images)[:, 1].square().sum().backward()
    assert blocks_of(model)[1].mlp.fc1.weight.grad.abs().sum() > 0
    assert model.reg_token.grad is None

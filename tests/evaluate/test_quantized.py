"""Running a model as if its layers were quantized, against the same arithmetic by hand."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from families import family, pictures
from torch import Tensor, nn
from variants import VARIANTS, make, noise, perturbed

from sinkablate.config import AttentionConfig
from sinkablate.errors import UserError
from sinkablate.evaluate.quantized import Simulation, calibrate, linear_layers
from sinkablate.evaluate.quantizer import (
    Granularity,
    Range,
    Scheme,
    image_ranges,
    simulate,
    simulate_weight,
    token_ranges,
)


class Mlp(nn.Module):
    """Two layers on tokens, a layer on the first token, and a layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.head, self.idle = (nn.Linear(6, size) for size in (6, 6, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.fc2(F.gelu(self.fc1(x)))[:, 0])
        return logits


@pytest.fixture
def model() -> Mlp:
    torch.manual_seed(0)
    return Mlp().eval()


@torch.no_grad()
def ranges_of(model: nn.Module, *batches: Tensor) -> Any:
    return calibrate(model, batches, model, 99.0)


def by_hand(model: Mlp, x: Tensor, scheme: Scheme, seen: Tensor) -> Tensor:
    """The output of the quantized model, computed step by step; `seen` are the calibration images."""

    def layer(name: str, x: Tensor, at_calibration: Tensor) -> Tensor:
        linear: nn.Linear = getattr(model, name)
        limits = {
            "static": lambda: Range(at_calibration.min(), at_calibration.max()),
            "dynamic": lambda: image_ranges(x),
            "token": lambda: token_ranges(x),
        }[scheme.granularity]()
        assert scheme.activation_bits is not None
        assert scheme.weight_bits is not None
        weight = simulate_weight(linear.weight, scheme.weight_bits)
        return F.linear(simulate(x, limits, scheme.activation_bits), weight, linear.bias)

    hidden = F.gelu(layer("fc1", x, seen))
    at_fc2 = F.gelu(model.fc1(seen))
    tokens = layer("fc2", hidden, at_fc2)
    return layer("head", tokens[:, :1], model.fc2(at_fc2)[:, 0])[:, 0]


@torch.no_grad()
@pytest.mark.parametrize("granularity", ["static", "dynamic", "token"])
def test_equals_the_arithmetic_by_hand(model: Mlp, granularity: Granularity) -> None:
    scheme, seen, x = Scheme(6, 8, granularity), noise(4, 5, 6), noise(3, 5, 6, seed=1)
    calibration = ranges_of(model, seen)
    with Simulation(model, scheme, calibration):
        torch.testing.assert_close(model(x), by_hand_outside(model, x, scheme, seen))


def by_hand_outside(model: Mlp, x: Tensor, scheme: Scheme, seen: Tensor) -> Tensor:
    """`by_hand` on a copy without hooks and with the weights in full precision."""
    torch.manual_seed(0)
    return by_hand(Mlp().eval(), x, scheme, seen)


@torch.no_grad()
def test_the_model_is_left_as_it_was_also_after_an_error(model: Mlp) -> None:
    x, weights = noise(2, 5, 6), {name: p.data_ptr() for name, p in model.named_parameters()}
    before, values = model(x), {name: p.clone() for name, p in model.named_parameters()}
    calibration = ranges_of(model, x)
    with Simulation(model, Scheme(4, 4), calibration):
        assert not model(x).equal(before)
    with pytest.raises(RuntimeError), Simulation(model, Scheme(4, 4), calibration):
        model(x[:, :, :3])
    assert model(x).equal(before)
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == weights
    assert all(p.equal(values[name]) for name, p in model.named_parameters())


@torch.no_grad()
def test_layers_that_do_not_run_have_no_ranges_and_one_layer_can_be_chosen(model: Mlp) -> None:
    x = noise(2, 5, 6)
    calibration = ranges_of(model, x)
    assert list(calibration) == ["fc1", "fc2", "head"]
    with Simulation(model, Scheme(None, 4, "token"), calibration, layers=["head"]):
        tokens = model.fc2(F.gelu(model.fc1(x)))[:, :1]
        expected = F.linear(simulate(tokens, token_ranges(tokens), 4), model.head.weight, model.head.bias)
        # The layer is called with the quantized input here, too, which is quantized once more to the same values.
        torch.testing.assert_close(model(x), expected[:, 0])


@torch.no_grad()
def test_calibration_does_not_depend_on_batches(model: Mlp) -> None:
    x = noise(5, 5, 6)
    at_once, in_parts = ranges_of(model, x), ranges_of(model, x[:2], x[2:])
    for scheme in (Scheme(8, 8), Scheme(8, 8, "static", 99.0)):
        for name in at_once:
            torch.testing.assert_close(at_once[name].static(scheme), in_parts[name].static(scheme))


@torch.no_grad()
@pytest.mark.parametrize("granularity", ["static", "dynamic"])
def test_an_outlier_token_is_left_out_of_the_range_or_kept(model: Mlp, granularity: Granularity) -> None:
    x = noise(3, 5, 6)
    x[:, 2] *= 1e4
    outlier = torch.zeros(3, 5, dtype=torch.bool)
    outlier[:, 2] = True
    calibration, received = ranges_of(model, x), {}
    model.fc1.weight.copy_(torch.eye(6))
    model.fc1.bias.zero_()  # the output of the layer is its quantized input
    handle = model.fc1.register_forward_hook(lambda _, __, output: received.update(x=output))
    others = x[~outlier]

    def error(**options: Any) -> tuple[float, float]:
        """Relative error of the input of the first layer: of ordinary tokens and of the outlier."""
        simulation = Simulation(model, Scheme(None, 8, granularity), calibration, layers=["fc1"], **options)
        with simulation:
            simulation.tokens = outlier if options else None
            model(x)
        difference = received["x"] - x
        return float(difference[~outlier].norm() / others.norm()), float(difference[outlier].norm() / x[outlier].norm())

    assert error()[0] > 0.5
    clipped, kept = error(excluded=outlier), error(excluded=outlier, kept=True)
    assert clipped[0] == kept[0] < 0.01
    assert clipped[1] > 0.99
    assert kept[1] == 0
    handle.remove()


@torch.no_grad()
def test_every_linear_layer_of_a_variant_is_quantized() -> None:
    model = perturbed(make(attention=AttentionConfig(gate="elementwise"), registers=2)).eval()
    calibration = ranges_of(model, noise(2, 1, 28, 28))
    names = [
        f"blocks.{block}.{layer}"
        for block in (0, 1)
        for layer in ("attn.qkv", "attn.gate", "attn.proj", "mlp.fc1", "mlp.fc2")
    ]
    assert set(calibration) == {*names, "head"}


@torch.no_grad()
@pytest.mark.parametrize("layer", ["qkv", "gate"])
def test_qkv_and_gate_are_quantized_one_without_the_other(layer: str) -> None:
    """Both read the same tokens and are one matrix product otherwise."""
    model, images = perturbed(make(depth=1, attention=AttentionConfig(gate="headwise"))).eval(), noise(2, 1, 28, 28)
    calibration, scheme = ranges_of(model, images), Scheme(None, 4)
    name = f"blocks.0.attn.{layer}"
    with Simulation(model, scheme, calibration, layers=[name]):
        simulated = model(images)
    read = getattr(model.blocks[0].attn, layer).register_forward_pre_hook(
        lambda _, args: simulate(args[0], calibration[name].static(scheme), 4)
    )
    expected = model(images)
    read.remove()
    torch.testing.assert_close(simulated, expected, rtol=1e-6, atol=1e-6)
    assert (simulated - model(images)).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("name", ["beit_base_patch16_224", "eva_giant_patch14_224"])
def test_a_layer_that_is_not_called_is_quantized_like_one_that_is(name: str) -> None:
    """Queries, keys and values of BEiT and EVA come from `F.linear` and the weight of a layer."""
    model = family(name)
    x = pictures(model)
    calibration = ranges_of(model, x)
    assert list(calibration) == list(linear_layers(model))
    attention: Any = model.blocks[0].attn  # type: ignore[index,union-attr]
    tokens: list[Tensor] = []
    model.blocks[0].norm1.register_forward_hook(lambda _, __, output: tokens.append(output))  # type: ignore[index,union-attr]
    model(x)
    expected = attention(simulate(tokens[0], token_ranges(tokens[0]), 4))
    tokens.clear()
    with Simulation(model, Scheme(None, 4, "token"), calibration, layers=["blocks.0.attn.qkv"]):
        received: list[Tensor] = []
        attention.register_forward_hook(lambda _, __, output: received.append(output))
        model(x)
    torch.testing.assert_close(received[0], expected)


def test_a_layer_whose_weight_is_used_otherwise_is_refused(model: Mlp) -> None:
    class Multiplied(Mlp):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * self.idle.weight)

    with pytest.raises(UserError, match=r"uses the weights of idle without calling F\.linear"):
        ranges_of(Multiplied(), noise(2, 5, 6))


@torch.no_grad()
@pytest.mark.parametrize("name", ["pathway", "gate_value", "kv_bias", "sigmoid_learned"])
@pytest.mark.parametrize("granularity", ["static", "dynamic", "token"])
def test_variants_run_with_tokens_kept_in_full_precision(name: str, granularity: Granularity) -> None:
    """With all tokens kept, what is left is the input of the head and the state of a global pathway."""
    model, images = perturbed(make(VARIANTS[name])).eval(), noise(3, 1, 28, 28)
    calibration, before = ranges_of(model, images), model(images)
    everything = torch.ones(3, 17, dtype=torch.bool)
    pooled = [layer for layer, ranges in calibration.items() if ranges.tokens.low.shape[1] == 1]
    assert set(pooled) == {"head", *(f"blocks.{block}.pathway.proj" for block in (0, 1) if name == "pathway")}
    with Simulation(model, Scheme(None, 4, granularity), calibration, excluded=everything, kept=True) as simulation:
        simulation.tokens = everything
        kept = model(images)
    with Simulation(model, Scheme(None, 4, granularity), calibration, layers=pooled):
        assert kept.equal(model(images))
    assert not kept.equal(before)
    assert model(images).equal(before)

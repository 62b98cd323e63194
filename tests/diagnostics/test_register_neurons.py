"""Finding the neurons that write outliers: planted ones, a direct computation, and the control."""

from typing import Any

import pytest
import timm
import torch
from planted_registers import HEIGHTS, READER, WRITERS, Planted, planted
from variants import noise

from sinkablate.config import RegisterNeuronConfig
from sinkablate.diagnostics.register_neurons import RegisterNeurons, find_register_neurons
from sinkablate.errors import UserError

WRITTEN = {(block, neuron) for block, neurons in WRITERS.items() for neuron in neurons}


@pytest.fixture(scope="module")
def case() -> Planted:
    return planted()


def find(case: Planted, **fields: Any) -> RegisterNeurons:
    config = RegisterNeuronConfig(**{"top": len(HEIGHTS), **fields})
    return find_register_neurons(case.model, lambda: case.images.split(4), config)


def test_the_planted_neurons_are_found_with_their_scores(case: Planted) -> None:
    found = find(case)
    assert set(found.neurons) == WRITTEN
    assert (found.outlier_block, found.blocks) == (1, (0, 1))
    assert found.outliers == pytest.approx(case.marks.double().mean().item())
    inputs: dict[int, torch.Tensor] = {}
    for block in WRITERS:
        case.model.blocks[block].mlp.fc2.register_forward_pre_hook(
            lambda _, args, block=block: inputs.update({block: args[0][:, 1:]})
        )
    with torch.no_grad():
        case.model(case.images)
    for (block, neuron), score in zip(found.neurons, found.scores, strict=True):
        of_images = [x[marks, neuron].abs().mean() for x, marks in zip(inputs[block], case.marks, strict=True)]
        assert score == pytest.approx(torch.stack(of_images).mean().item(), rel=1e-12)
    assert list(found.scores) == sorted(found.scores, reverse=True)
    for block in WRITERS:
        case.model.blocks[block].mlp.fc2._forward_pre_hooks.clear()


def test_neurons_that_read_outliers_are_found_only_where_they_are_looked_for(case: Planted) -> None:
    assert READER not in find(case, top=60).neurons
    assert find(case, top=1, blocks=(0, 1, -1)).neurons == (READER,)
    assert find(case, top=1, blocks=(0,), outlier_block=-1).neurons == ((0, WRITERS[0][0]),)


def test_the_control_draws_as_many_others_in_the_same_blocks(case: Planted) -> None:
    found, control = find(case), find(case, choice="random")
    counts = {block: len(neurons) for block, neurons in found.by_block().items()}
    assert {block: len(set(neurons)) for block, neurons in control.by_block().items()} == counts
    assert not set(control.neurons) & WRITTEN
    assert "random neurons in blocks 0, 1, as a control" in control.sentence
    assert "random" not in found.sentence
    assert control == find(case, choice="random") != find(case, choice="random", seed=1)


def test_without_outliers_the_largest_norms_take_their_place() -> None:
    torch.manual_seed(0)
    model = timm.create_model("vit_mini", num_classes=0).double()
    images = noise(5, 1, 28, 28).double()
    found = find_register_neurons(model, lambda: [images], RegisterNeuronConfig(top=3))
    assert (found.cutoff, found.outliers, found.outlier_block) == (None, 0.0, 2)
    assert "no patch of 5 images is an outlier" in found.sentence
    forced = find_register_neurons(model, lambda: [images], RegisterNeuronConfig(top=3, outlier_norm=1e-3))
    assert (forced.cutoff, forced.outliers) == (1e-3, 1.0)
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"top": 1000}, r"register_neurons.top=1000: blocks \[0, 1\] have only 128 neurons"),
        ({"top": 100, "choice": "random"}, r"register_neurons.top=100: block 0 has fewer than \d+ other neurons"),
        ({"blocks": (9,)}, r"register_neurons.blocks: 9 is outside the model's 4 blocks"),
    ],
)
def test_refusals(case: Planted, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        find(case, **fields)


def test_nothing_to_measure(case: Planted) -> None:
    with pytest.raises(UserError, match="images is empty"):
        find_register_neurons(case.model, list, RegisterNeuronConfig())
    with pytest.raises(UserError, match="NaN or infinity"):
        find_register_neurons(case.model, lambda: [case.images * torch.nan], RegisterNeuronConfig())

"""`add_test_time_registers` and `create_model(test_time_registers=...)`."""

import copy
from typing import Any

import pytest
import torch
from hugging_face import untrained
from planted_registers import WRITERS, planted
from variants import noise

import sinkablate as sa

SMALL = {"embed_dim": 32, "num_heads": 2, "depth": 3, "num_classes": 5}


def test_the_outliers_of_the_patches_end_on_the_register() -> None:
    case = planted()
    weights = copy.deepcopy(case.model.state_dict())
    treated = sa.add_test_time_registers(case.model, case.images, neurons=sa.RegisterNeuronConfig(top=3))
    assert set(treated.register_neurons.neurons) == {(b, i) for b, neurons in WRITERS.items() for i in neurons}
    before, after = sa.token_maps(case.model, case.images), sa.token_maps(treated, case.images)
    assert before.table["outliers"].max() == pytest.approx(case.marks.double().mean().item())
    assert after.table["outliers"].max() == 0
    assert after.prefix_types == ("cls", "register")
    assert after.prefix_norms[:, -1, 1].min() > 10 * after.norms[:, -1].max()
    assert case.model.state_dict().keys() == weights.keys()  # the model itself is left as it was
    assert all(torch.equal(weights[name], tensor) for name, tensor in case.model.state_dict().items())
    assert not hasattr(case.model, "register_neurons")


def test_the_control_leaves_the_outliers_where_they_were() -> None:
    case = planted()
    control = sa.RegisterNeuronConfig(top=3, choice="random")
    treated = sa.add_test_time_registers(case.model, case.images, neurons=control)
    before, after = (sa.token_maps(model, case.images).table["outliers"] for model in (case.model, treated))
    assert before.to_list() == after.to_list()


def test_a_treated_model_is_measured_evaluated_and_edited() -> None:
    model: Any = sa.create_model(**SMALL)
    images = noise(6, 1, 28, 28)
    treated: Any = sa.add_test_time_registers(model, images, count=2)
    assert treated(images).shape == (6, 5)
    measured = sa.measure(treated, images)
    assert (measured.summary["num_prefix_tokens"], measured.summary["num_tokens"]) == (3, 19)
    assert sa.intervene(treated, images, heads=[(1, 0)], edits=["mean_value"]).rows.height > 0
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images), batch_size=4)
    assert sa.add_test_time_registers(model, loader).register_neurons == (
        sa.add_test_time_registers(model, images).register_neurons
    )


def test_create_model_finds_the_neurons_on_photographs() -> None:
    model: Any = sa.create_model(**SMALL, test_time_registers=2)
    assert model.num_reg_tokens == 2
    assert model.register_neurons.images == 15
    assert not hasattr(sa.create_model(**SMALL), "register_neurons")


def test_models_of_transformers() -> None:
    images = noise(2, 3, 32, 32)
    treated: Any = sa.add_test_time_registers(untrained("Dinov2"), images)
    assert treated(pixel_values=images).last_hidden_state.shape[1] == 18
    assert sa.measure(treated, images).summary["num_prefix_tokens"] == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: sa.add_test_time_registers(m, x, count=0), "count must be at least 1, got 0"),
        (lambda m, x: sa.add_test_time_registers(m, x, count="2"), "count='2': expected int"),
        (lambda m, x: sa.add_test_time_registers(m, x, neurons=sa.RegisterNeuronConfig(images="a")), "second argument"),
        (lambda m, x: sa.add_test_time_registers(m, x[:0]), "images is empty"),
        (lambda m, _: sa.add_test_time_registers(m, noise(2, 3, 28, 28)), "expected a batch"),
        (lambda _, x: sa.add_test_time_registers(sa.create_model(registers=2), x), "has 2 registers of its own"),
        (lambda _, x: sa.create_model(test_time_registers=-1), "test_time_registers must be at least 0, got -1"),
        (lambda _, x: sa.create_model(test_time_registers=1, registers=2), "has 2 registers of its own"),
        (lambda _, x: sa.RegisterNeuronConfig(tops=2), "tops: RegisterNeuronConfig has no such field"),
        (lambda _, x: sa.RegisterNeuronConfig(outlier_norm=0.0), "outlier_norm must be positive"),
    ],
)
def test_refusals(call: Any, message: str) -> None:
    with pytest.raises(sa.UserError, match=message):
        call(sa.create_model(**SMALL), noise(2, 1, 28, 28))

"""The measuring pass never waits for a GPU, launches few operations, and measures several blocks together."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import timm
import torch
from direct import direct
from families import FAMILIES, family, pictures
from tapping import tapped
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from variants import in_pairs, make, mechanisms, noise, perturbed

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics import activations, updates
from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.diagnostics.recorder import Recorder
from sinkablate.diagnostics.records import Records
from sinkablate.diagnostics.tap import Tap
from sinkablate.errors import UserError
from sinkablate.vit.anatomy import features

T = ThresholdConfig()
MECHANISMS = in_pairs(mechanisms())
MOST_OPERATIONS = 90
"""Operations that measuring adds to a block of ViT-S/14 at 224 pixels, views left out."""
DOES_NOTHING = {"aten::_unsafe_view", "aten::detach", "aten::empty", "aten::empty_like", "aten::new_empty"}


class Operations(TorchDispatchMode):
    """Counts operations that would be kernels on a GPU; those that only create a view are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.indexed_by_mask = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        schema = func._schema
        views = any(value.alias_info is not None and not value.alias_info.is_write for value in schema.returns)
        if not views and schema.name not in DOES_NOTHING:
            self.counts[schema.name] += 1
        if schema.name.startswith("aten::index"):
            self.indexed_by_mask += any(
                isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)
                for index in (args[1] if isinstance(args[1], (list, tuple)) else ())
            )
        return func(*args, **(kwargs or {}))


def measured_without_content(model: nn.Module, images: Tensor) -> Operations:
    """Operations of the pass over a later batch on the meta device, where nothing that reads a value can run."""
    recorder = Recorder(T, memory_mib=4096)
    with torch.no_grad(), Tap(model, recorder, rebuild=False) as tap:  # the first batch, which is rebuilt, waits once
        tap._visibility._open = set(tap.parts)
        tap._visibility.end = lambda: None  # type: ignore[method-assign]  # one wait per batch, for additive masks only
        with Operations() as operations:
            tap.run(images)
            recorder.finish()
    return operations


def test_measuring_adds_few_operations_to_a_block() -> None:
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=224).eval().to("meta")
    images = torch.empty(8, 3, 224, 224, device="meta")
    with torch.no_grad(), Operations() as forward:
        features(model, images)
    measured = measured_without_content(model, images)
    added = (measured.counts.total() - forward.counts.total()) / len(model.blocks)
    assert 20 < added <= MOST_OPERATIONS
    assert not measured.indexed_by_mask


@pytest.mark.parametrize("name", MECHANISMS)
def test_no_mechanism_makes_the_pass_wait(name: str) -> None:
    assert not measured_without_content(
        make(MECHANISMS[name]).eval().to("meta"), torch.empty(2, 1, 28, 28, device="meta")
    ).indexed_by_mask


@pytest.mark.parametrize("name", FAMILIES)
def test_no_family_makes_the_pass_wait(name: str) -> None:
    model = family(name)
    assert not measured_without_content(model.to("meta"), pictures(model).to("meta")).indexed_by_mask


def records(model: nn.Module, images: Tensor, memory_mib: int | None = None) -> Records:
    recorder = Recorder(T, memory_mib)
    with measurement_mode(model), Tap(model, recorder) as tap:
        tap.run(images)
        return recorder.take(np.arange(len(images)), images)


def assert_same(one: Records, other: Records, limit: float) -> None:
    for group in ("heads", "mass", "candidates", "tokens"):
        values, others = getattr(one, group), getattr(other, group)
        assert values.keys() == others.keys()
        for name, array in values.items():
            np.testing.assert_allclose(others[name], array, rtol=limit, atol=limit, err_msg=name)
    for name in ("norms", "input_norms", "payload_sum", "payload_squares"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=limit, atol=limit, err_msg=name)


def assert_same_on_a_device(model: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The direct method, block by block on a CPU, several blocks together, and without the host's decisions agree."""
    alone = records(model.requires_grad_(False), images, memory_mib=0)
    for index, view in enumerate(tapped(model, images)[0]):
        for name, expected in direct(view, T).items():
            np.testing.assert_allclose(alone.heads[name][:, index], expected, rtol=1e-5, atol=1e-6, err_msg=name)
    assert_same(alone, records(model, images, memory_mib=4096), 1e-5)
    for module in (activations, updates):
        monkeypatch.setattr(module, "host_can_read", lambda _: False)
    assert_same(alone, records(model, images, memory_mib=4096), 1e-5)


@pytest.mark.parametrize("name", MECHANISMS)
def test_blocks_of_a_mechanism_measured_together_have_the_values_of_each(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_same_on_a_device(perturbed(make(MECHANISMS[name])).double(), noise(3, 1, 28, 28).double(), monkeypatch)


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_of_a_family_measured_together_have_the_values_of_each(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = family(name).double()
    assert_same_on_a_device(model, pictures(model).double(), monkeypatch)


def test_massive_activations_without_the_hosts_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    x = noise(4, 9, 32)
    x[1, 2, 3], x[2, 5, :4] = 5000.0, 120.0
    before = activations.massive_activations(x)
    monkeypatch.setattr(activations, "host_can_read", lambda _: False)
    assert torch.equal(activations.massive_activations(x), before)
    assert before.tolist() == [0, 1, 0, 0]


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Require deterministic algorithms, as `trainer.deterministic` does."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("name", MECHANISMS)
def test_no_operation_is_refused_where_deterministic_algorithms_are_required(name: str) -> None:
    """PyTorch refuses the same operations on the meta device as on a GPU."""
    assert measured_without_content(make(MECHANISMS[name]).eval().to("meta"), torch.empty(2, 1, 28, 28, device="meta"))


@pytest.mark.parametrize("channels", [32, 33])
def test_massive_activations_of_deterministic_algorithms(channels: int, request: pytest.FixtureRequest) -> None:
    x = 100 * noise(4, 9, channels)
    x[1, 2, 3], x[2, 5, :4] = 1e6, 2e5
    before = activations.massive_activations(x)
    request.getfixturevalue("deterministic")
    assert torch.equal(activations.massive_activations(x), before)
    assert before.tolist() == [0, 1, 4, 0]


class InPlace(nn.Module):
    """An MLP that overwrites what it reads."""

    def __init__(self, mlp: nn.Module, change: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.mlp, self.change = mlp, change

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.mlp(x)
        self.change(y)
        return y


def test_activations_that_the_model_modifies_in_place_are_noticed() -> None:
    model = make(depth=3).eval()
    captured: list[Tensor] = []
    model.blocks[0].register_forward_hook(lambda _module, _args, output: captured.append(output))
    model.blocks[2].mlp = InPlace(model.blocks[2].mlp, lambda _: captured[-1].add_(1.0))
    images = noise(2, 1, 28, 28)
    with pytest.raises(UserError, match=r"modifies its activations in place.*memory_mib=0"):
        records(model, images, memory_mib=64)
    assert records(model, images, memory_mib=0).heads["mass"].shape == (2, 3, 4)

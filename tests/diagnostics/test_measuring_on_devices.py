"""The measuring pass on a GPU equals the direct method and never waits; the same tests run on a CPU, on a few models.

`pytest -m gpu` runs every test that needs a GPU, in all files.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from direct import direct
from families import FAMILIES, family, pictures
from tapping import tapped
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from variants import in_pairs, make, mechanisms, noise, perturbed

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics import recorder as recorder_module
from sinkablate.diagnostics import updates
from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.diagnostics.recorder import Recorder
from sinkablate.diagnostics.tap import Tap
from sinkablate.vit.anatomy import features

T = ThresholdConfig()
MECHANISMS = mechanisms()
PAIRS = list(in_pairs(MECHANISMS))
MASKED = {"beit_base_patch16_224"}
"""Families with an additive mask, which is read once per batch to see whether it hides columns."""


def on_devices(few: list[str], every: list[str]) -> pytest.MarkDecorator:
    """Parametrize `device` and `name`: some names on a CPU, and every name on a GPU."""
    on_gpu = [pytest.param("cuda", name, marks=pytest.mark.gpu) for name in every]
    return pytest.mark.parametrize(("device", "name"), [*(("cpu", name) for name in few), *on_gpu])


each_mechanism = on_devices(PAIRS[:3], list(MECHANISMS))
each_family = on_devices(["vit_small_patch14_reg4_dinov2", "beit_base_patch16_224"], list(FAMILIES))


def assert_equals_the_direct_method(model: nn.Module, images: Tensor, device: str) -> None:
    """Every quantity of all heads, of all blocks measured together, in float64."""
    expected = [direct(view, T) for view in tapped(model.eval().requires_grad_(False), images)[0]]
    recorder = Recorder(T, memory_mib=4096)
    with measurement_mode(model.to(device)), Tap(model, recorder) as tap:
        tap.run(images.to(device))
        heads = recorder.take(np.arange(len(images))).heads
    for index, quantities in enumerate(expected):
        for name, values in quantities.items():
            np.testing.assert_allclose(heads[name][:, index], values, rtol=1e-5, atol=1e-6, err_msg=name)


@each_mechanism
def test_a_mechanism_measured_on_a_device_equals_the_direct_method(device: str, name: str) -> None:
    model, images = perturbed(make(MECHANISMS[name])).double(), noise(3, 1, 28, 28).double()
    assert_equals_the_direct_method(model, images, device)


@each_family
def test_a_family_measured_on_a_device_equals_the_direct_method(device: str, name: str) -> None:
    model = family(name).double()
    assert_equals_the_direct_method(model, pictures(model).double(), device)


def waits(run: Callable[[], object], device: str) -> int:
    """How often the host waits for a GPU; on a CPU, 0."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


def waits_of_a_later_batch(model: nn.Module, images: Tensor, device: str) -> int:
    """How often the host waits during a measuring pass after the first, not counting the waits of the model itself."""
    model, images = model.to(device), images.to(device)
    recorder = Recorder(T, memory_mib=4096)

    def measure() -> None:
        tap.run(images)
        recorder.finish()

    with measurement_mode(model):
        with Tap(model, recorder) as tap:
            measure()
            recorder.take(np.arange(len(images)))
            measuring = waits(measure, device)
        return measuring - waits(lambda: features(model, images), device)


@each_mechanism
def test_measuring_a_mechanism_never_waits(device: str, name: str) -> None:
    assert waits_of_a_later_batch(perturbed(make(MECHANISMS[name])), noise(3, 1, 28, 28), device) == 0


@each_family
def test_measuring_a_family_waits_only_for_additive_masks(device: str, name: str) -> None:
    model = family(name)
    assert waits_of_a_later_batch(model, pictures(model), device) == (device == "cuda" and name in MASKED)


class HostCopies(TorchDispatchMode):
    """Collects operations that copy tensors from the host to the device `meta`, for which a host with a GPU waits."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        read, written = (
            {x.device.type for x in tree_leaves(values) if isinstance(x, Tensor) and x.ndim}
            for values in ((args, kwargs), out)
        )
        if "cpu" in read and "meta" in read | written:
            self.names.append(func._schema.name)
        return out


@pytest.mark.parametrize("name", PAIRS)
def test_nothing_is_copied_from_the_host_after_the_first_batch(name: str) -> None:
    model, images = make(MECHANISMS[name]).eval().to("meta"), torch.empty(2, 1, 28, 28, device="meta")
    recorder = Recorder(T, memory_mib=4096)
    with torch.no_grad(), Tap(model, recorder) as tap:
        tap.rebuild_errors = dict.fromkeys(tap.parts, 0.0)  # the first batch, which is checked, waits once
        tap.run(images)
        recorder.finish()
        recorder.reset()
        with HostCopies() as copies:
            tap.run(images)
            recorder.finish()
    assert copies.names == []


@pytest.mark.parametrize(
    ("device", "backend"), [("cpu", "aot_eager"), pytest.param("cuda", "inductor", marks=pytest.mark.gpu)]
)
def test_quantities_compile_without_graph_breaks(device: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    model, images = perturbed(make(registers=2)).double().to(device), noise(3, 1, 28, 28).double().to(device)

    def heads() -> dict[str, np.ndarray]:
        recorder = Recorder(T, memory_mib=4096)
        with measurement_mode(model), Tap(model, recorder) as tap:
            tap.run(images)
            return recorder.take(np.arange(len(images))).heads

    monkeypatch.setattr(updates, "host_can_read", lambda _: False)
    expected, function = heads(), recorder_module.head_quantities
    monkeypatch.setattr(recorder_module, "head_quantities", torch.compile(function, backend=backend, fullgraph=True))
    for name, values in heads().items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-6, atol=1e-7, err_msg=name)

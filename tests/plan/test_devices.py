"""The model of a device: seconds of known operations, and the choice of a device."""

import pytest
import torch

from sinkablate.errors import UserError
from sinkablate.plan.devices import DEVICES, Device, choose_device
from sinkablate.plan.operations import Kernel, Work

DEVICE = Device("test", half_flops=2000.0, single_flops=500.0, bandwidth=100.0, launch=0.5, efficiency=0.5)


def test_every_operation_takes_as_long_as_its_slowest_term() -> None:
    arithmetic = Kernel(flops=4000, bytes=100, half=True)  # 4 s, 2 s, .5 s
    memory = Kernel(flops=250, bytes=150, half=False)  # 1 s, 3 s, .5 s
    launch = Kernel(flops=0, bytes=5, half=False)  # 0 s, .1 s, .5 s
    seconds = DEVICE.seconds(Work({arithmetic: 1, memory: 2, launch: 10}))
    assert seconds.total == pytest.approx(4 + 2 * 3 + 10 * 0.5)
    assert seconds.arithmetic == pytest.approx(4 + 2 * 1)
    assert seconds.memory == pytest.approx(2 + 2 * 3 + 10 * 0.1)
    assert seconds.launches == pytest.approx(13 * 0.5)


def test_a_named_device_and_its_efficiency() -> None:
    assert choose_device("H200", None, "auto", 1) is DEVICES["h200"]
    device = choose_device("a100", 0.9, "auto", 1)
    assert device is not None
    assert (device.bandwidth, device.efficiency) == (DEVICES["a100"].bandwidth, 0.9)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_time_on_a_gpu_is_unknown() -> None:
    assert choose_device(None, None, "gpu", 1) is None


def test_the_rates_of_the_cpu_are_measured_with_the_threads_of_the_run() -> None:
    before = torch.get_num_threads()
    device = choose_device(None, None, "cpu", before + 1)
    assert device is not None
    assert min(device.half_flops, device.single_flops, device.bandwidth, device.launch) > 0
    assert device.single_flops > 1e8
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("name", "efficiency", "message"),
    [
        ("h1000", None, "device=h1000: no such device; did you mean h100 or h200 or a100?"),
        ("h100", 0.0, "efficiency=0.0: must be greater than 0"),
        ("h100", 1.5, "efficiency=1.5: must be greater than 0 and at most 1"),
    ],
)
def test_an_unknown_device_is_refused(name: str, efficiency: float | None, message: str) -> None:
    with pytest.raises(UserError) as error:
        choose_device(name, efficiency, "auto", 1)
    assert message in str(error.value)

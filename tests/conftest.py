import gc
import os
import random
import signal
from pathlib import Path

import pytest
import torch
from sharing import Once, shared_by_workers
from variants import in_pairs, mechanisms

pytest_plugins = ["shared_runs"]


@pytest.fixture(autouse=True, scope="session")
def _signals_arrive() -> None:
    """A shell may start its background jobs with signals ignored, which every process of a test would inherit."""
    for number, handler in {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGQUIT: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="module")
def _old_objects() -> None:
    """Whatever modules and shared runs are there when a test module begins, no collection of garbage visits again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Makes what several tests read, once for all workers."""
    return shared_by_workers(tmp_path_factory)


@pytest.fixture(scope="session")
def dinov2() -> Path:
    """A real DINOv2 ViT-S/14 in timm's key names."""
    shared = os.environ.get("SINKABLATE_SHARED") or Path(__file__).resolve().parents[2] / "shared"
    found = Path(shared) / "data" / "vit_small_patch14_dinov2.safetensors"
    if not found.is_file():
        pytest.skip("the pretrained weights are not here (SINKABLATE_SHARED names the folder)")
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `mechanism` sees every value of every axis, and every two that go together."""
    if "mechanism" in metafunc.fixturenames:
        found = in_pairs(mechanisms())
        metafunc.parametrize("mechanism", found.values(), ids=found.keys())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files and their tests in the random order of SINKABLATE_TEST_ORDER, a seed; heavy tests of SLURM in one group."""
    if seed := os.environ.get("SINKABLATE_TEST_ORDER"):
        shuffled = random.Random(seed)
        rank = {path: shuffled.random() for path in sorted({item.path for item in items})}
        shuffled.shuffle(items)
        items.sort(key=lambda item: rank[item.path])
    for item in items:
        own = "slurm" if item.path.parent.name == "slurm" else str(item.path.relative_to(item.config.rootpath))
        item.add_marker(pytest.mark.xdist_group(own))

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
    """Restore default signal handling: a shell may start background jobs with ignored signals, which tests inherit."""
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
def _freeze_old_objects() -> None:
    """Exclude objects that exist when a test module begins from further garbage collections, which saves time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Makes folders that several tests read, once for all workers."""
    return shared_by_workers(tmp_path_factory)


@pytest.fixture(scope="session")
def dinov2() -> Path:
    """Path of the real DINOv2 ViT-S/14 weights, with timm's parameter names."""
    shared = os.environ.get("SINKABLATE_SHARED") or Path(__file__).resolve().parents[2] / "shared"
    weights = Path(shared) / "data" / "vit_small_patch14_dinov2.safetensors"
    if not weights.is_file():
        pytest.skip(f"no pretrained weights at {weights}; SINKABLATE_SHARED sets the folder above data/")
    return weights


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize tests that take `mechanism` with every compatible pair of values of two axes."""
    if "mechanism" in metafunc.fixturenames:
        configs = in_pairs(mechanisms())
        metafunc.parametrize("mechanism", configs.values(), ids=configs.keys())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that need a GPU if there is none, and shuffle tests by the seed SINKABLATE_TEST_ORDER.

    Files and their tests are shuffled; the tests of a file stay together.
    """
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="there is no GPU"))
    if seed := os.environ.get("SINKABLATE_TEST_ORDER"):
        shuffled = random.Random(seed)
        rank = {path: shuffled.random() for path in sorted({item.path for item in items})}
        shuffled.shuffle(items)
        items.sort(key=lambda item: rank[item.path])

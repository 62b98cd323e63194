"""How often a training step waits for the device: only once, for its loss, in steps that log nothing.

On a machine with a GPU, `pytest -m gpu` also checks the real waits.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from running import CONFIGS, QUICK, run
from torch.utils._python_dispatch import TorchDispatchMode

from sinkablate.callbacks.preemption import Preemption
from sinkablate.callbacks.throughput import Throughput

WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::unique_dim"}
"""Operations whose result, or its shape, the host must know before it can continue."""
EVERY = 4
TASKS = {
    "classify": (
        "gate_reg.yaml",
        "--model.ema.decay=0.9",
        "--model.loss.mixup=0.5",
        "--model.backbone.drop_path_rate=0.1",
    ),
    "lejepa": ("lejepa_small.yaml",),
    "penalty": ("pathway_penalty.yaml", "--trainer.accumulate_grad_batches=2", "--trainer.limit_train_batches=16"),
}


class Waits(TorchDispatchMode):
    """Counts the operations for which the host waits."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        self.counts[name] += name in WAITING
        return func(*args, **(kwargs or {}))


def train(task: str, run_dir: Path, *args: str) -> None:
    """Train for eight steps that are measured only before and after; workers load the images."""
    config, *more = TASKS[task]
    run(
        "fit",
        *("--config", CONFIGS / config, "--run_dir", run_dir, *QUICK, "--trainer.limit_train_batches=8", *more),
        *(f"--trainer.log_every_n_steps={EVERY}", "--diagnostics.every_n_steps=1000", "--data.num_workers=1", *args),
    ).succeeded()


def logs_nothing(step: int) -> bool:
    """Whether a step with this number of completed steps before it neither logs nor is the first or last."""
    return step not in (0, 7) and (step + 1) % EVERY != 0


@pytest.fixture
def waits() -> Iterator[Waits]:
    with Waits() as mode:
        yield mode


@pytest.mark.parametrize("task", TASKS)
def test_a_step_that_logs_nothing_waits_only_for_its_loss(
    task: str, waits: Waits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before: dict[int, int] = {}
    numbers: list[Any] = []
    start, log = Preemption.on_train_batch_start, L.LightningModule.log

    def starting(self: Preemption, trainer: L.Trainer, *args: Any) -> None:
        before.setdefault(trainer.global_step, waits.counts.total())  # of the first micro-batch
        start(self, trainer, *args)

    def logging(self: L.LightningModule, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        if logs_nothing(max(before, default=0)) and not isinstance(value, torch.Tensor):
            numbers.append(name)  # Lightning would copy it to the device
        log(self, name, value, *args, **kwargs)

    monkeypatch.setattr(Preemption, "on_train_batch_start", starting)
    monkeypatch.setattr(L.LightningModule, "log", logging)
    train(task, tmp_path / "run")
    batches = 2 if "--trainer.accumulate_grad_batches=2" in TASKS[task] else 1
    counts = {step: before[step + 1] - before[step] for step in range(7) if logs_nothing(step)}
    assert counts == dict.fromkeys((1, 2, 4, 5, 6), batches)
    assert numbers == []


@pytest.mark.gpu
@pytest.mark.parametrize("task", TASKS)
def test_no_operation_of_such_a_step_waits_for_the_gpu(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard waits for an event, which PyTorch does not count as a synchronizing operation."""
    start, end = Preemption.on_train_batch_start, Throughput.on_train_batch_end

    def starting(self: Preemption, trainer: L.Trainer, *args: Any) -> None:
        start(self, trainer, *args)
        torch.cuda.set_sync_debug_mode("error" if logs_nothing(trainer.global_step) else "default")

    def ending(self: Throughput, trainer: L.Trainer, *args: Any) -> None:
        end(self, trainer, *args)
        torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Preemption, "on_train_batch_start", starting)
    monkeypatch.setattr(Throughput, "on_train_batch_end", ending)
    try:
        train(task, tmp_path / "run", "--trainer.accelerator=gpu", "--trainer.devices=1")
    finally:
        torch.cuda.set_sync_debug_mode("default")

"""Gradient norms, spikes, nonfinite steps and throughput during training."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from running import column, fit, metrics
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader, TensorDataset
from training import quiet_trainer

from sinkablate.callbacks import throughput
from sinkablate.callbacks.stability import Stability
from sinkablate.callbacks.throughput import Throughput
from sinkablate.data.datamodule import ImageData
from sinkablate.errors import UserError
from sinkablate.tasks.classify import Classify

INF = float("inf")


class Scripted(L.LightningModule):
    """A task with given losses and gradients: the first number of a sample is its loss, the second its gradient.

    Args:
        clock: Called with the seconds that a training batch (1), a validation batch (100) and the end of a training
            batch (10) take.
    """

    def __init__(self, clock: Callable[[float], None] = lambda _seconds: None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.clock = clock

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.clock(1)
        loss, self.slope = batch[0][0]
        with torch.no_grad():
            self.weight.zero_()  # undo the last update
        return loss + self.weight.sum()

    def on_after_backward(self) -> None:
        assert self.weight.grad is not None
        self.weight.grad.fill_(self.slope)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.clock(100)

    def on_train_batch_end(self, outputs: Any, batch: list[Tensor], batch_idx: int) -> None:
        self.clock(10)

    def configure_optimizers(self) -> Optimizer:
        return SGD(self.parameters(), 0.0)


class Rows(DummyLogger):
    """Records the last value of everything logged."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[str, float] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:  # type: ignore[override]
        self.last |= metrics


def train(
    root: Path,
    steps: Sequence[tuple[float, float]],
    callback: L.Callback,
    task: L.LightningModule | None = None,
    **trainer: Any,
) -> dict[str, float]:
    """Train on scripted steps; returns the last value of everything logged."""
    rows = Rows()
    loader = DataLoader(TensorDataset(torch.tensor(steps)), batch_size=1)
    quiet_trainer(
        root,
        logger=rows,
        callbacks=[callback],
        **{"max_epochs": 1, "log_every_n_steps": 1, "limit_val_batches": 0} | trainer,
    ).fit(task or Scripted(), loader, loader)
    return {name.removeprefix("stability/"): value for name, value in rows.last.items()}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_gradient_norm_is_taken_before_clipping(accumulate: int, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    fit(
        run_dir,
        f"--data.batch_size={16 // accumulate}",
        f"--trainer.accumulate_grad_batches={accumulate}",
        "--trainer.gradient_clip_val=0.001",
        "--seed_everything=3",
    ).succeeded()
    task = Classify(seed=3)
    images, labels, _ = next(iter(ImageData(batch_size=16, seed=3).train_dataloader()))
    nn.functional.cross_entropy(task(images), labels).backward()
    expected = sum(float(p.grad.double().square().sum()) for p in task.parameters() if p.grad is not None) ** 0.5
    assert float(column(run_dir, "stability/grad_norm")["0"]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("every", "grad_norm"), [(1, 7.0), (4, 7.0), (7, 1.875), (100, None)])
def test_spikes_of_loss_and_gradient_are_counted_separately(
    every: int, grad_norm: float | None, tmp_path: Path
) -> None:
    """Ten constant steps, then two loss spikes, a gradient spike, and values just below twice the median."""
    steps = [(1.0, 1.0)] * 10 + [(2.1, 1.0), (5.0, 1.0), (1.0, 3.0), (1.875, 1.875), (1.0, 1.0), (1.0, 7.0)]
    last = train(tmp_path, steps, Stability(), log_every_n_steps=every)
    assert (last["loss_spikes"], last["grad_spikes"], last["nonfinite_steps"]) == (2, 2, 0)
    assert last.get("grad_norm") == grad_norm


def test_spikes_are_counted_after_ten_steps_or_a_full_window(tmp_path: Path) -> None:
    steps = [(1.0, 1.0)] * 4 + [(9.0, 9.0)]
    assert train(tmp_path, steps, Stability())["loss_spikes"] == 0
    assert train(tmp_path, steps, Stability(window=4))["loss_spikes"] == 1
    assert train(tmp_path, steps, Stability(window=4, factor=9.5))["loss_spikes"] == 0


def test_the_median_follows_the_window(tmp_path: Path) -> None:
    """A lasting rise is a spike until the median has risen too."""
    steps = [(1.0, 1.0)] * 10 + [(3.0, 1.0)] * 20
    assert train(tmp_path, steps, Stability(window=10))["loss_spikes"] == 5
    assert train(tmp_path, steps, Stability(window=1000))["loss_spikes"] == 10


def test_nonfinite_steps_are_counted_and_do_not_enter_the_median(tmp_path: Path) -> None:
    steps = [(1.0, 1.0)] * 10 + [(1.0, INF), (1.0, float("nan")), (1.0, 1.5), (1.0, 3.0)]
    callback = Stability()
    last = train(tmp_path, steps, callback)
    assert (last["nonfinite_steps"], last["grad_spikes"], last["loss_spikes"]) == (2, 1, 0)
    assert list(callback.history["grad"]) == [1.0] * 10 + [1.5, 3.0]


@pytest.mark.parametrize("stop", [3, 11, 12])
def test_resuming_from_a_saved_state_equals_never_stopping(stop: int, tmp_path: Path) -> None:
    steps = [(1.0, 1.0)] * 10 + [(4.0, 1.0), (1.0, 5.0), (4.0, INF), (3.0, 1.0)]
    straight = Stability()
    train(tmp_path, steps, straight, log_every_n_steps=5)
    first, second = Stability(), Stability()
    train(tmp_path, steps[:stop], first, log_every_n_steps=5)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    last = train(tmp_path, steps[stop:], second, log_every_n_steps=5)
    assert second.state_dict() == straight.state_dict()
    assert (last["loss_spikes"], last["grad_spikes"], last["nonfinite_steps"]) == (3, 1, 1)


@pytest.mark.parametrize(("arguments", "key"), [({"factor": 1.0}, "stability.factor"), ({"window": 0}, "window")])
def test_numbers_out_of_range_are_refused(arguments: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=key):
        Stability(**arguments)


def test_the_summary_includes_the_last_steps_of_a_run(tmp_path: Path) -> None:
    fit(tmp_path / "run", "--trainer.log_every_n_steps=50").succeeded()
    assert metrics(tmp_path / "run")[-1]["stability/nonfinite_steps"] == "0.0"
    assert '"stability/nonfinite_steps": 0' in (tmp_path / "run" / "summary.json").read_text()


def test_throughput_counts_training_and_its_hooks_but_not_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[float] = []
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: sum(passed)))
    callback = Throughput()
    train(
        tmp_path,
        [(1.0, 1.0)] * 4,
        callback,
        Scripted(passed.append),
        max_epochs=2,
        limit_val_batches=2,
        num_sanity_val_steps=0,
    )
    assert sum(passed) == 2 * (4 * (1 + 10) + 2 * 100)
    assert callback.images == 2 * 4  # one row per batch
    assert callback.seconds == 2 * 4 * (1 + 10)
    assert callback.images_per_second == 8 / callback.seconds


def test_throughput_continues_after_resuming(tmp_path: Path) -> None:
    first, second = Throughput(), Throughput()
    assert first.images_per_second != first.images_per_second
    train(tmp_path, [(1.0, 1.0)] * 3, first)
    second.load_state_dict(first.state_dict())
    train(tmp_path, [(1.0, 1.0)] * 2, second)
    assert second.images == 5
    assert second.seconds > first.seconds

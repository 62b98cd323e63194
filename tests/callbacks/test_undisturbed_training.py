"""Measuring changes nothing in training: weights, logged numbers, compiled graphs."""

from pathlib import Path

import pytest
import torch
from running import column, fit
from torch._dynamo.testing import CompileCounterWithBackend
from training import assert_equal, tensors, train

from sinkablate.config import BackboneConfig
from sinkablate.data.datamodule import ImageData
from sinkablate.tasks.classify import Classify

pytestmark = pytest.mark.heavy

TRAININGS = {
    "dropout and drop-path": (
        "--model.backbone.drop_rate=0.1",
        "--model.backbone.proj_drop_rate=0.1",
        "--model.backbone.attn_drop_rate=0.1",
        "--model.backbone.drop_path_rate=0.2",
    ),
    "accumulation": ("--trainer.accumulate_grad_batches=2", "--trainer.limit_train_batches=5"),
    "ema": ("--model.ema.decay=0.9",),
    "mixup and cutmix": ("--model.loss.mixup=0.8", "--model.loss.cutmix=1.0"),
    "bf16": ("--trainer.precision=bf16-mixed",),
}


@pytest.mark.parametrize("args", TRAININGS.values(), ids=TRAININGS.keys())
def test_training_with_and_without_measuring_is_identical_to_the_last_bit(
    args: tuple[str, ...], tmp_path: Path
) -> None:
    for name, every in (("on", 1), ("off", 0)):
        fit(
            tmp_path / name,
            "--trainer.limit_train_batches=3",
            "--trainer.max_epochs=2",
            "--diagnostics.images=4",
            f"--diagnostics.every_n_steps={every}",
            *args,
        ).succeeded()
    assert_equal(tensors(tmp_path / "on"), tensors(tmp_path / "off"))
    for name in ("train/loss", "lr", "val/acc1", "val/loss", "stability/grad_norm"):
        assert column(tmp_path / "on", name) == column(tmp_path / "off", name), name
    assert len(column(tmp_path / "on", "train/loss")) == 6


def test_measuring_changes_neither_graphs_nor_weights_of_a_compiled_model(data: ImageData, tmp_path: Path) -> None:
    results = []
    for every in (0, 1):
        torch._dynamo.reset()
        counter = CompileCounterWithBackend("eager")
        task = Classify(BackboneConfig(drop_path_rate=0.2))
        task.backbone.compile(backend=counter)
        torch.manual_seed(0)
        steps = train(tmp_path, data, task, 3, every)
        results.append((counter.frame_count, len(counter.graphs), task.state_dict()))
        assert steps == ([0, 1, 2, 3] if every else [])
    off, on = results
    assert off[0] > 0
    assert on[:2] == off[:2]
    assert_equal(on[2], off[2])

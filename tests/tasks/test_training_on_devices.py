"""Staged checkpoints, fused optimizers and workers on a GPU; the same tests run on a CPU. `pytest -m gpu` on a GPU."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning_utilities.core.apply_func import apply_to_collection
from running import column, fit
from torch import Tensor, nn
from variants import make, noise, perturbed

from sinkablate.config import OptimConfig
from sinkablate.run.staging import Staging
from sinkablate.tasks.optim import make_optimizer

each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


def trained(
    device: str,
    optimizer_of: Callable[[nn.Module], torch.optim.Optimizer],
    steps: int = 3,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """The state of a small model and its optimizer after a few steps."""
    model = perturbed(make(registers=2)).to(device, dtype)
    optimizer = optimizer_of(model)
    for step in range(steps):
        F.cross_entropy(
            model(noise(8, 1, 28, 28, seed=step).to(device, dtype)), torch.arange(8, device=device)
        ).backward()
        optimizer.step()
        optimizer.zero_grad()
    return {"state_dict": model.state_dict(), "optimizer_states": [optimizer.state_dict()], "global_step": steps}


def saved(state: Any) -> bytes:
    """The bytes of a checkpoint file."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


@each_device
def test_staged_states_of_a_training_are_saved_as_the_same_bytes(device: str) -> None:
    staging = Staging([device])
    for steps in (1, 2):  # the second copy reuses the memory of the first
        state = trained(device, lambda model: make_optimizer(model, OptimConfig()), steps)
        staged, wait = staging.copy(state)
        wait()
        copied = apply_to_collection(state, Tensor, lambda tensor: tensor.detach().to("cpu", copy=True))
        assert saved(staged) == saved(copied)


@each_device
@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_fused_optimizers_end_in_the_same_weights(device: str, name: str) -> None:
    def fused(model: nn.Module) -> torch.optim.Optimizer:
        optimizer = make_optimizer(model, OptimConfig(opt=name))
        assert all(group["fused"] for group in optimizer.param_groups)
        return optimizer

    def plain(model: nn.Module) -> torch.optim.Optimizer:
        optimizer = make_optimizer(model, OptimConfig(opt=name))
        for group in optimizer.param_groups:
            group["fused"], group["foreach"] = False, False
        return optimizer

    one, other = (trained(device, make_one, dtype=torch.float64)["state_dict"] for make_one in (fused, plain))
    for parameter, tensor in one.items():
        # gradients of key biases are zero up to rounding, which Adam divides by its own size
        torch.testing.assert_close(other[parameter], tensor, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=pytest.mark.heavy), pytest.param("cuda", marks=pytest.mark.gpu)]
)
def test_images_from_workers_train_to_the_same_losses(device: str, tmp_path: Path) -> None:
    accelerator = f"--trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}"
    losses = []
    for workers in ("0", "2", "auto"):
        run_dir = tmp_path / workers
        fit(run_dir, accelerator, "--trainer.devices=1", f"--data.num_workers={workers}").succeeded()
        losses.append(list(column(run_dir, "train/loss").values()))
    assert losses[0]
    assert losses[1:] == [losses[0]] * 2

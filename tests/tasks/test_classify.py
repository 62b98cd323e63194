"""What the classification task does around a step."""

from pathlib import Path

import pytest
import torch
from running import fit


@pytest.mark.parametrize(("batches", "accumulate", "steps"), [(5, 2, 3), (3, 8, 1), (4, 1, 4)])
def test_the_average_moves_with_every_optimizer_step(batches: int, accumulate: int, steps: int, tmp_path: Path) -> None:
    fit(
        tmp_path / "run",
        "--model.ema.decay=0.5",
        f"--trainer.limit_train_batches={batches}",
        f"--trainer.accumulate_grad_batches={accumulate}",
        "--model.optim.warmup_steps=0",
        "--diagnostics.every_n_steps=0",
    ).succeeded()
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == steps
    weights = {name: saved["state_dict"][f"{name}.head.weight"] for name in ("backbone", "ema.module")}
    assert torch.equal(*weights.values()) == (steps == 1)  # timm's first update copies
    fit(
        tmp_path / "start",
        "--model.ema.decay=0.5",
        "--trainer.limit_train_batches=1",
        "--model.optim.lr=1e-12",
        "--diagnostics.every_n_steps=0",
        "--model.optim.warmup_steps=0",
    ).succeeded()
    start = torch.load(tmp_path / "start" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert not torch.allclose(start["ema.module.head.weight"], weights["ema.module"], atol=1e-6)


@pytest.mark.parametrize("alpha", ["--model.loss.mixup=0.2", "--model.loss.cutmix=1.0"])
def test_an_odd_batch_cannot_be_mixed(alpha: str, tmp_path: Path) -> None:
    outcome = fit(tmp_path / "run", alpha, "--data.batch_size=15")
    assert outcome.code == 2
    assert outcome.err.strip().startswith("error: data.batch_size=15")
    assert not (tmp_path / "run").exists()

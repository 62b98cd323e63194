"""A loss that is NaN on one rank stops all ranks before the weights change."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from running import quick_fit, ranks

from sinkablate.callbacks.nan_guard import NanGuard


def spoil_the_second_rank() -> None:
    """Make the loss NaN on one rank, in the second step."""
    check = NanGuard.on_before_backward

    def spoiled(self: NanGuard, trainer: L.Trainer, module: L.LightningModule, loss: torch.Tensor) -> None:
        nan = trainer.global_rank == 1 and trainer.global_step == 1
        check(self, trainer, module, loss * float("nan") if nan else loss)

    NanGuard.on_before_backward = spoiled  # type: ignore[method-assign]


@pytest.mark.heavy
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_a_nan_loss_on_one_rank_stops_all(strategy: str, tmp_path: Path) -> None:
    words: list[Any] = [*quick_fit(tmp_path / "run", "--trainer.devices=2", f"--trainer.strategy={strategy}")]
    outcomes = ranks(2, *words, before=spoil_the_second_rank)
    assert [outcome.code for outcome in outcomes] == [2, 2]
    healthy, spoiled = (outcome.err.splitlines()[-1] for outcome in outcomes)
    assert healthy.startswith("error: the loss of another rank is NaN or infinite at step 1 ")
    assert spoiled.startswith("error: the loss is nan at step 1 ")
    saved = torch.load(tmp_path / "run" / "checkpoints" / "nonfinite.ckpt", weights_only=True)
    assert saved["global_step"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in saved["state_dict"].values() if tensor.is_floating_point())

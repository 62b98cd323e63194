"""The classification task: moving average, label mixing, and batches that cannot be mixed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from running import fit
from torch import Tensor

from sinkablate.config import LossConfig
from sinkablate.tasks.classify import Classify


@pytest.mark.parametrize(("batches", "accumulate", "steps"), [(5, 2, 3), (3, 8, 1), (4, 1, 4)])
@pytest.mark.filterwarnings("error:.*in eval mode at the start of training")  # the average is, on purpose
def test_the_moving_average_is_updated_in_every_optimizer_step(
    batches: int, accumulate: int, steps: int, tmp_path: Path
) -> None:
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


def mixed(batches: int, **loss: Any) -> list[Tensor]:
    """Batches of 16 constant images, valued 0 to 15 and mixed with the one at the other end of the batch."""
    task = Classify(loss=LossConfig(**loss))
    images = torch.arange(16.0).view(16, 1, 1, 1).expand(16, 1, 28, 28)
    return [task._mix(images.clone(), torch.arange(16) % 10, number)[0] for number in range(batches)]


@pytest.mark.parametrize(("mode", "coefficients"), [("batch", 1), ("pair", 8), ("elem", 16)])
def test_mixup_mode_sets_how_many_images_share_a_coefficient(mode: str, coefficients: int) -> None:
    (images,) = mixed(1, mixup=1.0, mixup_mode=mode)
    own, partner = torch.arange(16.0), torch.arange(16.0).flip(0)
    shares = (images[:, 0, 0, 0] - partner) / (own - partner)  # the share of itself that an image keeps
    assert len({round(float(share), 4) for share in shares}) == coefficients


@pytest.mark.parametrize(("switch", "is_cutmix"), [(0.0, False), (1.0, True)])
def test_mixup_switch_prob_chooses_between_mixup_and_cutmix(switch: float, is_cutmix: bool) -> None:
    batches = mixed(4, mixup=1.0, cutmix=1.0, mixup_switch_prob=switch)
    pasted = all(bool((images == images.round()).all()) for images in batches)  # cutmix does not change pixel values
    assert pasted == is_cutmix

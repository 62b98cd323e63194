"""A run that was stopped and resumed on the command line equals the uninterrupted run."""

from pathlib import Path

import pytest
import torch
from running import column, fit, killed, quick_fit

LONGER = ("--trainer.max_epochs=2", "--trainer.limit_train_batches=6")
MIXED = ("--model.loss.mixup=0.5", "--model.ema.decay=0.9", "--model.backbone.drop_path_rate=0.2")


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    """An uninterrupted run with a checkpoint at every third step."""
    run_dir = tmp_path_factory.mktemp("uninterrupted") / "run"
    fit(
        run_dir,
        *LONGER,
        *MIXED,
        "--checkpoint.every_n_train_steps=3",
        "--checkpoint.save_top_k=-1",
        "--checkpoint.filename=s{step}",
    ).succeeded()
    return run_dir


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("step", [3, 9])
def test_a_resumed_run_repeats_no_batch(uninterrupted, tmp_path, step, workers):
    checkpoint = uninterrupted / "checkpoints" / f"sstep={step}.ckpt"
    fit(tmp_path / "run", *LONGER, *MIXED, f"--data.num_workers={workers}", "--ckpt_path", checkpoint).succeeded()
    expected, losses = column(uninterrupted, "train/loss"), column(tmp_path / "run", "train/loss")
    assert len(expected) == 12
    assert losses == {number: loss for number, loss in expected.items() if int(number) >= step}
    after, before = weights(tmp_path / "run"), weights(uninterrupted)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_killed_run_resumes_from_its_last_epoch(tmp_path):
    """`last.ckpt` is written after each epoch, not only at the end."""
    run_dir = tmp_path / "run"
    words = quick_fit(run_dir, *LONGER, *MIXED)
    last = run_dir / "checkpoints" / "last.ckpt"
    killed(*words, "--trainer.max_epochs=500", after=last.parent, pattern=last.name)
    saved_step = torch.load(last, weights_only=True)["global_step"]
    assert saved_step % 6 == 0
    assert not (run_dir / "DONE").exists()
    fit(run_dir, *LONGER, *MIXED, f"--trainer.max_epochs={saved_step // 6 + 1}", "--ckpt_path", last).succeeded()
    assert sorted(map(int, column(run_dir, "train/loss"))) == list(range(saved_step + 6))

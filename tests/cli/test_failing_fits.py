"""Fits that fail for a reason outside their arguments end in one line that says what to do."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from refused_fits import STREAM, shards
from running import CONFIGS, Outcome, assert_refused, fit, forked, quick_fit, run


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("accelerator", ["gpu", "cuda"])
def test_a_missing_gpu_is_refused(accelerator: str, empty_folder: Path) -> None:
    assert_refused(
        fit(empty_folder / "run", "--trainer.accelerator", accelerator), f"trainer.accelerator={accelerator}"
    )
    assert list(empty_folder.iterdir()) == []


def test_a_monitored_metric_that_is_not_logged_is_refused(empty_folder: Path) -> None:
    outcome = fit(empty_folder / "run", "--checkpoint.monitor=val/acc", "--diagnostics.every_n_steps=0")
    assert_refused(outcome, "checkpoint.monitor=val/acc: no such metric is logged; did you mean val/acc")


def test_pretrained_weights_that_cannot_be_downloaded_are_refused(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "huggingface_hub.constants.HF_HUB_OFFLINE", True
    )  # huggingface_hub read the variable when it was imported
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(empty_folder / "cache"))
    outcome = fit(
        empty_folder / "run",
        "--model.backbone.name=vit_tiny_patch16_224",
        "--model.backbone.pretrained=true",
        "--data.image.size=32",
    )
    announcement, line = outcome.err.splitlines()
    assert "Loading pretrained weights from Hugging Face hub (timm/vit_tiny_patch16_224" in announcement
    assert_refused(
        replace(outcome, err=line), "model.backbone.name=vit_tiny_patch16_224", "--model.backbone.checkpoint=FILE"
    )
    assert not (empty_folder / "run").exists()


@pytest.mark.parametrize("start", [run, forked])
def test_a_nan_loss_stops_the_run(start: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = start(
        *quick_fit(
            tmp_path / "run", "--model.optim.lr=1e30", "--model.optim.warmup_steps=0", "--diagnostics.every_n_steps=1"
        )
    )
    checkpoint = tmp_path / "run" / "checkpoints" / "nonfinite.ckpt"
    assert_refused(outcome, "loss is nan at step 1", "backbone.", str(checkpoint))
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 1
    assert (tmp_path / "run" / "metrics.csv").exists()
    assert not (tmp_path / "run" / "DONE").exists()


def test_a_nan_loss_is_also_named_with_anomaly_detection(tmp_path: Path) -> None:
    words = ("--model.optim.lr=1e30", "--model.optim.warmup_steps=0", "--diagnostics.every_n_steps=0")
    outcome = fit(tmp_path / "run", *words, "--trainer.detect_anomaly=true")
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].startswith("error: the loss is nan at step 1 ")


def test_a_nan_loss_is_also_named_with_several_views(tmp_path: Path) -> None:
    words = ("--model.optim.lr=1e30", "--model.optim.warmup_steps=0", "--diagnostics.every_n_steps=0")
    outcome = fit(tmp_path / "run", *words, configs=[CONFIGS / "lejepa_small.yaml"])
    assert_refused(outcome, "the loss is nan at step 1 (first in the output of backbone.")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_truncated_shard_of_a_stream_is_named(workers: int, paths: dict[str, Path], tmp_path: Path) -> None:
    """A stream is read during training, so the error appears only then and leaves the run unfinished."""
    args = f"{shards('cut')} {STREAM} --data.num_workers {workers}".format(**paths).split()
    start = forked if workers else run
    outcome = start(*quick_fit(tmp_path / "run", *args, "--data.batch_size=20", "--diagnostics.images=1"))
    assert_refused(outcome, "train-0001.tar", "data.source.on_error")
    assert not (tmp_path / "run" / "DONE").exists()

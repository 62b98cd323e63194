"""The change at step 0 is printed and stored by `fit`, and by `diagnose` of its run."""

from pathlib import Path

import pytest
import torch
from running import checkpoint, fit, run, summary

from sinkablate.config import BackboneConfig
from sinkablate.vit.backbone import build_backbone

GATED = ("--model.backbone.attention.gate", "headwise", "--diagnostics.every_n_steps", "0")
SENTENCE = "headwise gate changed the final tokens of the pretrained model by "


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of vit_mini without mechanisms."""
    path = tmp_path_factory.mktemp("weights") / "plain.pt"
    torch.save(build_backbone(BackboneConfig(), seed=1).state_dict(), path)
    return path


def test_fit_and_diagnose_report_the_drift_of_a_gate(weights: Path, tmp_path: Path) -> None:
    outcome = fit(tmp_path / "run", *GATED, "--model.backbone.checkpoint", weights).succeeded()
    assert outcome.err.startswith(f"warning: {SENTENCE}")
    stored = summary(tmp_path / "run")["drift"]
    assert (stored["added"], stored["images"]) == (["headwise gate"], 8)
    assert 0.01 < stored["tokens"] < 1
    assert checkpoint(tmp_path / "run")["callbacks"]["StartDrift"] == stored
    diagnosed = run("diagnose", "--run", tmp_path / "run", "--limit", "2", "--out", tmp_path / "out").succeeded()
    assert f"warning: {SENTENCE}{stored['tokens']:.1%}" in diagnosed.out
    assert summary(tmp_path / "out")["drift"] == stored


def test_a_resumed_run_keeps_the_drift_of_its_start(weights: Path, tmp_path: Path) -> None:
    words = (*GATED, "--model.backbone.attention.gate_start=identity", "--model.backbone.checkpoint", str(weights))
    words = (*words, "--trainer.max_epochs=2")
    started = fit(tmp_path / "run", *words, "--checkpoint.save_top_k=-1", "--checkpoint.filename=e{epoch}").succeeded()
    assert SENTENCE in started.out
    assert started.err == ""
    expected = summary(tmp_path / "run")["drift"]
    assert expected["tokens"] <= 1e-7
    resumed = fit(tmp_path / "more", *words, "--ckpt_path", tmp_path / "run/checkpoints/eepoch=0.ckpt").succeeded()
    assert SENTENCE not in resumed.out
    assert summary(tmp_path / "more")["drift"] == expected


def test_nothing_is_reported_without_pretrained_weights(tmp_path: Path) -> None:
    outcome = fit(tmp_path / "run", *GATED).succeeded()
    assert "changed the final tokens" not in outcome.out + outcome.err
    assert "drift" not in summary(tmp_path / "run")


def test_a_refused_fit_does_not_mention_the_drift(weights: Path, tmp_path: Path) -> None:
    words = (*GATED, "--model.backbone.checkpoint", weights, "--model.optim.warmup_steps=50")
    outcome = fit(tmp_path / "run", *words)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "changed the final tokens" not in outcome.out + outcome.err
    assert not (tmp_path / "run").exists()

"""LeJEPA on the command line: it trains, resumes exactly, and is measured and diagnosed like any other run."""

import signal
from pathlib import Path

import pytest
import torch
from running import CONFIGS, column, fit, metrics, quick_fit, run, summary, together
from signalling import signal_at

CONFIG = [CONFIGS / "lejepa_small.yaml"]
ARGS = (
    "--trainer.limit_train_batches=4",
    "--trainer.max_epochs=2",
    "--diagnostics.every_n_steps=3",
    "--model.backbone.drop_path_rate=0.1",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("lejepa") / "run"
    fit(run_dir, *ARGS, configs=CONFIG).succeeded()
    return run_dir


def test_fit_logs_both_loss_terms_the_probe_and_the_rank(whole: Path) -> None:
    for name in ("train/loss", "train/sigreg", "train/invariance", "train/probe_loss", "sink/mass_max"):
        assert column(whole, name), name
    rank, top1, top5 = (
        float(list(column(whole, f"val/{name}").values())[-1]) for name in ("effective_rank", "acc1", "acc5")
    )
    assert rank > 1
    assert 0 <= top1 <= top5 <= 1
    weighted = [
        0.02 * float(regular) + 0.98 * float(same)
        for regular, same in zip(
            column(whole, "train/sigreg").values(), column(whole, "train/invariance").values(), strict=True
        )
    ]
    assert list(map(float, column(whole, "train/loss").values())) == pytest.approx(weighted, rel=1e-5)


@pytest.mark.heavy
def test_a_stopped_run_resumes_with_the_same_random_directions_and_views(whole: Path, tmp_path: Path) -> None:
    with signal_at(2, signal.SIGUSR1):
        assert fit(tmp_path / "run", *ARGS, "--ckpt_path=auto", configs=CONFIG).code == 75
    fit(tmp_path / "run", *ARGS, "--ckpt_path=auto", configs=CONFIG).succeeded()
    one, other = (
        torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for path in (whole, tmp_path / "run")
    )
    assert all(torch.equal(other[name], tensor) for name, tensor in one.items())
    assert metrics(tmp_path / "run") == metrics(whole)


def test_probe_only_trains_nothing_but_the_probe(tmp_path: Path) -> None:
    fit(
        tmp_path / "run",
        *ARGS,
        "--model.lejepa.probe_only=true",
        "--checkpoint.every_n_train_steps=1",
        "--checkpoint.save_top_k=-1",
        configs=CONFIG,
    ).succeeded()
    first, last = (
        torch.load(path, weights_only=True)["state_dict"]
        for path in (
            next((tmp_path / "run" / "checkpoints").glob("*step=1.ckpt")),
            tmp_path / "run" / "checkpoints" / "last.ckpt",
        )
    )
    moved = {
        name.split(".")[0]
        for name in first
        if not torch.equal(first[name], last[name]) and "running_" not in name and "num_batches" not in name
    }
    assert moved == {"probe"}


def test_a_run_can_be_diagnosed_and_evaluated(whole: Path, tmp_path: Path) -> None:
    run("diagnose", "--run", whole, "--out", tmp_path / "out", "--limit", "4").succeeded()
    assert summary(tmp_path / "out")["image_count"] == 4
    run("validate", "--config", whole / "config.yaml", "--run_dir", whole).succeeded()


def test_a_single_view_is_refused(tmp_path: Path) -> None:
    refused = fit(tmp_path / "run", "--data.views.count=1", configs=CONFIG)
    assert (refused.code, "needs at least 2" in refused.err) == (2, True), refused.err
    assert not (tmp_path / "run").exists()


@pytest.mark.heavy
def test_two_processes_compute_the_same_as_one(tmp_path: Path) -> None:
    """In float64 and with statistics over all ranks; with statistics per rank, the default, the losses differ."""
    exact = (
        "--trainer.precision=64-true",
        *ARGS,
        "--model.backbone.drop_path_rate=0",
        "--trainer.max_epochs=1",
        "--trainer.limit_val_batches=1.0",
        "--data.eval_batch_size=500",
    )
    everyone, two = "--model.lejepa.all_ranks=true", ("--trainer.strategy=ddp",)
    for name, count, args in (("one", 1, (everyone,)), ("all", 2, (everyone, *two)), ("own", 2, two)):
        together(count, *quick_fit(tmp_path / name, *exact, *args, configs=CONFIG)).succeeded()
    one, all_ranks, own = (metrics(tmp_path / name) for name in ("one", "all", "own"))
    assert len(one) == len(all_ranks) == len(own) == 5
    for row, other in zip(one, all_ranks, strict=True):
        for name, value in row.items():
            assert bool(other[name]) == bool(value), name
            if value:  # diagnostics are computed in float32
                limit = 1e-9 if name.startswith("train/") else 1e-4
                assert float(other[name]) == pytest.approx(float(value), rel=limit, abs=limit), name
    assert {name for name, value in one[0].items() if value} == {name for name, value in own[0].items() if value}
    assert column(tmp_path / "own", "sink/mass_max").keys() == column(tmp_path / "one", "sink/mass_max").keys()
    assert float(own[1]["train/sigreg"]) != pytest.approx(float(one[1]["train/sigreg"]), rel=1e-3)

"""Results on a GPU equal those on the CPU: `pytest -m gpu` on a machine with a GPU; skipped elsewhere."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from evaluating import folder_data
from families import FAMILIES, family, pictures
from polars.testing import assert_series_equal
from running import CONFIGS, ROOT, column, fit, heads, quick_fit, run, spawn
from torch import nn
from variants import make, mechanisms, noise, perturbed

from sinkablate.config import BackboneConfig, ThresholdConfig
from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.diagnostics.recorder import Recorder
from sinkablate.diagnostics.tap import Tap

pytestmark = pytest.mark.gpu
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by --trainer.deterministic before CUDA starts

GATE_REG = [CONFIGS / "gate_reg.yaml"]
ON_GPU = ("--trainer.accelerator=gpu", "--trainer.devices=1")
STEPS = ("--trainer.limit_train_batches=4", "--diagnostics.every_n_steps=2")
MECHANISMS = mechanisms()
SOME_MECHANISMS = [name for name in MECHANISMS if name.endswith("-2")]


@pytest.fixture(scope="module")
def cpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps on the CPU."""
    run_dir = tmp_path_factory.mktemp("cpu") / "run"
    fit(run_dir, *STEPS, configs=GATE_REG).succeeded()
    return run_dir


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on the GPU."""
    run_dir = tmp_path_factory.mktemp("gpu") / "run"
    fit(run_dir, *STEPS, *ON_GPU, configs=GATE_REG).succeeded()
    return run_dir


def losses(run_dir: Path) -> list[float]:
    return [float(loss) for loss in column(run_dir, "train/loss").values()]


def assert_same_tables(one: pl.DataFrame, other: pl.DataFrame, limit: float) -> None:
    assert one.columns == other.columns
    for name in one.columns:
        if one[name].dtype.is_float():
            allowed = (
                0.05 if name.endswith("gate_corr") else limit
            )  # a correlation, unstable while attention is almost uniform
            assert_series_equal(other[name], one[name], rel_tol=allowed, abs_tol=allowed)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_measurements_equal_the_cpus_in_any_precision(precision: str, cpu: Path, tmp_path: Path) -> None:
    fit(tmp_path / "run", *STEPS, *ON_GPU, f"--trainer.precision={precision}", configs=GATE_REG).succeeded()
    assert_same_tables(heads(cpu, 0), heads(tmp_path / "run", 0), 1e-4)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert 0 < summary["peak_memory_gib"] < 1
    assert (tmp_path / "run" / "DONE").exists()
    assert losses(tmp_path / "run") == pytest.approx(losses(cpu), rel=1e-4 if precision == "32-true" else 2e-2)


@pytest.mark.parametrize(
    "extra",
    [
        ("--model.compile=true",),
        ("--model.backbone.grad_checkpointing=true",),
        ("--trainer.strategy=fsdp2",),
        ("--trainer.strategy=ddp",),
    ],
    ids=lambda extra: extra[0].lstrip("-"),
)
def test_other_training_options_end_in_the_same_losses(extra: tuple[str, ...], gpu: Path, tmp_path: Path) -> None:
    spawn(*quick_fit(tmp_path / "run", *STEPS, *ON_GPU, *extra, configs=GATE_REG)).succeeded()
    assert losses(tmp_path / "run") == pytest.approx(losses(gpu), rel=1e-4)
    assert_same_tables(heads(gpu, 4), heads(tmp_path / "run", 4), 1e-2)


def test_a_resumed_run_is_identical_to_the_last_bit(tmp_path: Path) -> None:
    args = (
        *ON_GPU,
        "--trainer.deterministic=true",
        "--trainer.limit_train_batches=4",
        "--trainer.max_epochs=2",
        "--model.loss.mixup=0.5",
        "--model.ema.decay=0.9",
        "--model.backbone.drop_path_rate=0.2",
    )
    fit(
        tmp_path / "whole",
        *args,
        "--checkpoint.every_n_train_steps=2",
        "--checkpoint.save_top_k=-1",
        "--checkpoint.filename=s{step}",
        configs=GATE_REG,
    ).succeeded()
    fit(
        tmp_path / "rest", *args, "--ckpt_path", tmp_path / "whole" / "checkpoints" / "sstep=2.ckpt", configs=GATE_REG
    ).succeeded()
    assert losses(tmp_path / "rest") == losses(tmp_path / "whole")[2:]
    one, other = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "rest")
    )
    assert all(torch.equal(other[name], tensor) for name, tensor in one.items())


@pytest.mark.parametrize("config", ["lejepa_small.yaml", "pathway_penalty.yaml", "toy/nop.yaml", "toy/broadcast.yaml"])
def test_other_tasks_train(config: str, tmp_path: Path) -> None:
    args = (
        "--data.batch_size=16",
        "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=2",
        "--trainer.limit_val_batches=1",
        "--wandb.mode=disabled",
        "--trainer.log_every_n_steps=1",
    )
    both = {}
    for device in ("cpu", "gpu"):
        run(
            "fit",
            "--config",
            CONFIGS / config,
            *args,
            f"--trainer.accelerator={device}",
            "--run_dir",
            tmp_path / device,
        ).succeeded()
        both[device] = losses(tmp_path / device)
    assert both["gpu"] == pytest.approx(both["cpu"], rel=1e-3)


@pytest.mark.parametrize("verb", ["diagnose", "intervene"])
def test_diagnoses_and_interventions_equal_the_cpus(verb: str, gpu: Path, tmp_path: Path) -> None:
    extra = ("--rule=adaptive",) if verb == "intervene" else ()
    for device in ("cpu", "cuda"):
        run(verb, "--run", gpu, "--device", device, *extra, "--out", tmp_path / device).succeeded()
    tables = [path.name for path in (tmp_path / "cpu").glob("*.parquet")]
    assert tables
    for name in tables:
        assert_same_tables(*(pl.read_parquet(tmp_path / device / name) for device in ("cpu", "cuda")), limit=2e-3)


def recorded(model: nn.Module, images: torch.Tensor) -> dict[str, Any]:
    recorder = Recorder(ThresholdConfig())
    with measurement_mode(model), Tap(model, recorder) as tap:
        tap.run(images)
        assert max(tap.rebuild_errors.values()) < 1e-4
    return recorder.take(np.arange(len(images))).heads


@pytest.mark.parametrize("name", FAMILIES)
def test_measurements_of_every_family_equal_the_cpus(name: str) -> None:
    model = family(name)
    images = pictures(model)
    one, other = recorded(model, images), recorded(model.cuda(), images.cuda())
    for quantity, values in one.items():
        np.testing.assert_allclose(other[quantity], values, rtol=2e-3, atol=2e-4, err_msg=quantity)


@pytest.mark.parametrize("name", SOME_MECHANISMS)
def test_a_mechanism_trains_in_bfloat16(name: str) -> None:
    """Loss, logits and gradients of the fused kernels under autocast against float64 on the CPU."""
    config: BackboneConfig = MECHANISMS[name]
    images, targets = noise(8, 1, 28, 28), torch.arange(8)
    exact = perturbed(make(config)).double()
    mixed = perturbed(make(config)).cuda()
    F.cross_entropy(exact(images.double()), targets).backward()
    with torch.autocast("cuda", torch.bfloat16):
        logits = mixed(images.cuda())
    F.cross_entropy(logits.float(), targets.cuda()).backward()
    for (parameter, one), other in zip(exact.named_parameters(), mixed.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), parameter
    one, other = (
        torch.cat([p.grad.flatten().double().cpu() for p in model.parameters() if p.grad is not None])
        for model in (exact, mixed)
    )
    assert F.cosine_similarity(one, other, dim=0) > 0.98
    assert 0.8 < other.norm() / one.norm() < 1.25


@pytest.mark.parametrize("name", SOME_MECHANISMS)
def test_mechanisms_compute_the_same_as_on_the_cpu(name: str) -> None:
    model, images = perturbed(make(MECHANISMS[name])).double(), noise(4, 1, 28, 28, dtype=torch.float64)
    logits = model(images)
    torch.testing.assert_close(model.cuda()(images.cuda()).cpu(), logits, rtol=1e-9, atol=1e-9)


def test_a_sweep_uses_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "configs").symlink_to(CONFIGS)
    file = tmp_path / "two.yaml"
    file.write_text(
        "program: sinkablate\nname: two\nproject: sinkablate\nmethod: grid\nmetric: {name: val/acc1, goal: maximize}\n"
        "command: ['${env}', '${interpreter}', -m, sinkablate, fit, --config, configs/baseline.yaml, "
        "--trainer.max_epochs, 1, --trainer.limit_train_batches, 2, --trainer.limit_val_batches, 1, --wandb.mode, "
        "disabled, --sweep, two, --ckpt_path, auto, '${args}']\n"
        "parameters:\n  seed_everything: {values: [0, 1]}\n"
    )
    run("sweep", "run", file).succeeded()
    summaries = [json.loads(path.read_text()) for path in (tmp_path / "runs" / "two").glob("*/summary.json")]
    assert len(summaries) == 2


def test_features_are_extracted_as_on_a_cpu(gpu: Path, image_folder: Path, tmp_path: Path) -> None:
    for device in ("cpu", "cuda"):
        words = ("--out", tmp_path / device, "--device", device, "--tasks", "knn,linear", *folder_data(image_folder))
        run("evaluate", "--run", gpu, *words).succeeded()
    tables = (pl.read_parquet(tmp_path / device / "evaluation.parquet") for device in ("cpu", "cuda"))
    one, other = (rows.filter(task="knn")["value"] for rows in tables)
    assert_series_equal(one, other, abs_tol=0.11)  # one or two of the 20 images
    for path in sorted((tmp_path / "cpu" / "features").rglob("*.npy")):
        same = tmp_path / "cuda" / path.relative_to(tmp_path / "cpu")
        np.testing.assert_allclose(np.load(same), np.load(path), rtol=1e-2, atol=1e-2)

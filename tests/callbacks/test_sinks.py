"""Measuring while a model trains: at the right steps, the right numbers, and without a trace in the training."""

import json
import random
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import polars as pl
import pytest
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from reporting import LOW
from running import column, fit, heads, metrics
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from sinkablate.callbacks.run_diagnostics import RunDiagnostics
from sinkablate.config import AttentionConfig, BackboneConfig, ThresholdConfig
from sinkablate.data.datamodule import ImageData
from sinkablate.diagnostics.probe import measurement_mode, probe
from sinkablate.diagnostics.rules import rules
from sinkablate.diagnostics.summary import scalars
from sinkablate.diagnostics.tables import block_table, head_table
from sinkablate.tasks.classify import Classify
from sinkablate.vit.backbone import build_backbone
from sinkablate.vit.tokens import TokenType

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


def tensors(run_dir: Path) -> dict[str, Tensor]:
    """Everything in the last checkpoint's modules."""
    found: dict[str, Tensor] = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return found


def assert_equal(some: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    assert some.keys() == others.keys()
    assert all(torch.equal(tensor, others[name]) for name, tensor in some.items())


@pytest.mark.parametrize("args", TRAININGS.values(), ids=TRAININGS.keys())
def test_training_is_the_same_to_the_bit_with_and_without(args: tuple[str, ...], tmp_path: Path) -> None:
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


def test_zero_switches_it_off(tmp_path: Path) -> None:
    fit(tmp_path / "run", "--diagnostics.every_n_steps=0").succeeded()
    assert not any(name.startswith(("sink/", "norm/", "gate/")) for name in metrics(tmp_path / "run")[0])
    assert not (tmp_path / "run" / "diagnostics").exists()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, whose thresholds are so low that there are events."""
    run_dir = tmp_path_factory.mktemp("measured") / "run"
    fit(
        run_dir, *LOW, "--model.optim.lr=0.01", "--model.optim.warmup_steps=0", "--model.backbone.registers=2"
    ).succeeded()
    return run_dir


class Told(DummyLogger):
    """Notes at which steps sinks were logged."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int | None] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:  # type: ignore[override]
        if "sink/events" in metrics:
            self.steps.append(step)


@pytest.fixture(scope="module")
def data() -> ImageData:
    """The embedded images, decoded once."""
    return ImageData(batch_size=8)


def train(root: Path, data: ImageData, task: Classify, batches: int, every: int, **trainer: Any) -> list[int | None]:
    """Train from Python for an epoch of some batches; returns the steps that were measured."""
    told = Told()
    L.Trainer(
        default_root_dir=root,
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=batches,
        logger=told,
        callbacks=[RunDiagnostics(every, images=4, heatmap=False, per_doubling=0)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"limit_val_batches": 0} | trainer,
    ).fit(task, datamodule=data)
    return told.steps


@pytest.mark.parametrize(
    ("batches", "accumulate", "every", "steps"),
    [
        (4, 1, 1, [0, 1, 2, 3, 4]),
        (5, 1, 2, [0, 2, 4, 5]),
        (4, 1, 2, [0, 2, 4]),
        (2, 1, 50, [0, 2]),
        (5, 2, 1, [0, 1, 2, 3]),
        (9, 3, 2, [0, 2, 3]),
    ],
)
def test_measures_each_due_optimizer_step_once(
    batches: int, accumulate: int, every: int, steps: list[int], data: ImageData, tmp_path: Path
) -> None:
    assert train(tmp_path, data, Classify(), batches, every, accumulate_grad_batches=accumulate) == steps
    files = sorted((tmp_path / "diagnostics").glob("*.parquet"))
    assert [path.name for path in files] == [f"step_{step:08d}.parquet" for step in steps]


@pytest.mark.slow
def test_a_compiled_model_keeps_its_graphs_and_its_weights(data: ImageData, tmp_path: Path) -> None:
    found = []
    for every in (0, 1):
        torch._dynamo.reset()
        counter = CompileCounterWithBackend("eager")
        task = Classify(BackboneConfig(drop_path_rate=0.2))
        task.backbone.compile(backend=counter)
        torch.manual_seed(0)
        steps = train(tmp_path, data, task, 3, every)
        found.append((counter.frame_count, len(counter.graphs), task.state_dict()))
        assert steps == ([0, 1, 2, 3] if every else [])
    off, on = found
    assert off[0] > 0
    assert on[:2] == off[:2]
    assert_equal(on[2], off[2])


def test_logged_numbers_are_those_of_the_checkpointed_weights(data: ImageData, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    fit(
        run_dir,
        "--model.backbone.registers=2",
        "--model.backbone.attention.gate=headwise",
        "--model.optim.lr=0.01",
        "--model.optim.warmup_steps=0",
        "--diagnostics.batch_size=3",
    ).succeeded()
    model = build_backbone(
        BackboneConfig(registers=2, attention=AttentionConfig(gate="headwise")),
        num_classes=10,
        in_chans=1,
        img_size=28,
        seed=1,
    )
    model.load_state_dict({name.removeprefix("backbone."): tensor for name, tensor in tensors(run_dir).items()})
    images = data.probe_images(8).images
    thresholds = ThresholdConfig()
    records, _ = probe(model, images, np.arange(8), thresholds, batch_size=3)
    logged = metrics(run_dir)[-1]
    expected = scalars(records, thresholds)
    assert logged["step"] == "2"
    assert {name: float(logged[name]) for name in expected} == expected
    for path, table in ((f"step_{2:08d}.parquet", head_table), (f"blocks/step_{2:08d}.parquet", block_table)):
        stored = pl.read_parquet(run_dir / "diagnostics" / path)
        assert stored.drop("step").equals(table(records, thresholds))
    first, last = heads(run_dir, 0), heads(run_dir, 2)
    assert not first["median_mass"].equals(last["median_mass"])


@pytest.mark.parametrize("rule", [rule.name for rule in rules(ThresholdConfig()) if rule.handoff])
def test_the_summary_counts_events_by_type_as_the_table_of_blocks(rule: str, measured: Path) -> None:
    """The table has events per image of each block, and the share of them on each type."""
    summary = json.loads((measured / "summary.json").read_text())
    table = pl.read_parquet(measured / "diagnostics" / "blocks" / f"step_{2:08d}.parquet").fill_nan(0)
    for name, place in (("counts", pl.col("block") > 0), ("first_block", pl.col("block") == 0)):
        counted, rows = summary[name][rule]["by_token_type"], table.filter(place)
        for kind in TokenType:
            share = rows[f"events_{rule}_{kind.label}"]
            assert sum(shares[kind.label] for shares in counted.values()) == pytest.approx(
                (rows[f"events_{rule}"] * share).sum()
            )
    assert summary["counts"]["adaptive"]["events"] > 0


@pytest.mark.parametrize(("value", "label", "other"), [(0.0, "nop", "broadcast"), (1.0, "broadcast", "nop")])
def test_a_planted_sink_is_seen_for_what_it_does(
    value: float, label: str, other: str, data: ImageData, tmp_path: Path
) -> None:
    """CLS lies far along one direction; every query of head 2 in block 1 seeks it, and its value is chosen."""
    task = Classify(BackboneConfig(qkv_bias=True))
    model: Any = task.backbone
    attn, direction = model.blocks[1].attn, torch.zeros(model.embed_dim)
    direction[:2] = torch.tensor([1.0, -1.0])  # without a mean, which the norm would take away
    q, k, v = (torch.arange(3)[:, None] * attn.attn_dim + 2 * attn.head_dim + torch.arange(attn.head_dim)).unbind()
    with torch.no_grad():
        model.cls_token.copy_(1e4 * direction)
        attn.qkv.weight[q] = 0
        attn.qkv.bias[q] = 10.0
        attn.qkv.weight[k] = direction
        attn.qkv.weight[v, :2] = value * direction[:2]
    assert train(tmp_path, data, task, 1, 1) == [0, 1]
    head = heads(tmp_path, 0).filter(pl.col("block") == 1, pl.col("head") == 2)
    assert head["token_type"].item() == "cls"
    assert head["median_mass"].item() == pytest.approx(1, abs=1e-4)
    assert head["causal_frequency"].item() == 1
    assert (head[f"causal_{label}"].item(), head[f"causal_{other}"].item()) == (4, 0)


def global_state() -> tuple[Any, ...]:
    """Random states and settings of numbers, as values that compare."""
    numpy = np.random.get_state(legacy=False)
    assert isinstance(numpy, dict)
    state = numpy["state"]
    return (
        random.getstate(),
        state["key"].tolist(),
        state["pos"],
        numpy["has_gauss"],
        torch.get_rng_state().tolist(),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
    )


@pytest.mark.parametrize("breaks", [False, True], ids=["as planned", "by an exception"])
@pytest.mark.parametrize("precision", ["high", "highest"])
def test_undisturbed_puts_everything_back(breaks: bool, precision: str) -> None:
    norm = nn.BatchNorm1d(2)
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.Sequential(norm, nn.Dropout(0.5))).train()
    norm.eval()
    modes = [module.training for module in model.modules()]
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = True
    try:
        before = global_state()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            try:
                with measurement_mode(model):
                    inside = (
                        torch.get_float32_matmul_precision(),
                        torch.backends.cudnn.allow_tf32,
                        torch.is_grad_enabled(),
                        torch.is_autocast_enabled("cpu"),
                    )
                    evaluates = not any(module.training for module in model.modules())
                    draw = random.random(), np.random.standard_normal(), torch.rand(1), model(torch.ones(4, 2))
                    assert draw[-1].dtype == torch.float32
                    if breaks:
                        raise KeyError("inside")
            except KeyError:
                assert breaks
            assert torch.is_autocast_enabled("cpu")
        after = global_state()
    finally:
        torch.set_float32_matmul_precision("highest")
    assert inside == ("highest", False, False, False)
    assert evaluates
    assert after == before
    assert [module.training for module in model.modules()] == modes

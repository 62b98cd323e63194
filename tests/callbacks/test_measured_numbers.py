"""The numbers measured during training: those of the checkpointed weights, counts by token type, a planted sink."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from reporting import LOW
from running import fit, heads, metrics
from torch import Tensor
from training import tensors, train
from variants import make, noise

from sinkablate.callbacks.sinks import SinkDiagnostics
from sinkablate.config import AttentionConfig, BackboneConfig, ThresholdConfig
from sinkablate.data.datamodule import ImageData
from sinkablate.diagnostics import tap as tap_module
from sinkablate.diagnostics.capture import rebuild_error
from sinkablate.diagnostics.probe import probe
from sinkablate.diagnostics.rules import rules
from sinkablate.diagnostics.summary import scalars
from sinkablate.diagnostics.tables import block_table, head_table
from sinkablate.diagnostics.tap import NonfiniteError
from sinkablate.diagnostics.view import BlockView
from sinkablate.tasks.classify import Classify
from sinkablate.vit.backbone import build_backbone
from sinkablate.vit.tokens import TokenType


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps with thresholds low enough for events to occur."""
    run_dir = tmp_path_factory.mktemp("measured") / "run"
    fit(
        run_dir, *LOW, "--model.optim.lr=0.01", "--model.optim.warmup_steps=0", "--model.backbone.registers=2"
    ).succeeded()
    return run_dir


def test_logged_numbers_belong_to_the_checkpointed_weights(data: ImageData, tmp_path: Path) -> None:
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
def test_event_counts_by_type_agree_between_summary_and_block_table(rule: str, measured: Path) -> None:
    """The block table holds the events per image of each block and the share of each token type."""
    summary = json.loads((measured / "summary.json").read_text())
    table = pl.read_parquet(measured / "diagnostics" / "blocks" / f"step_{2:08d}.parquet").fill_nan(0)
    for name, blocks in (("counts", pl.col("block") > 0), ("first_block", pl.col("block") == 0)):
        counted, rows = summary[name][rule]["by_token_type"], table.filter(blocks)
        for kind in TokenType:
            share = rows[f"events_{rule}_{kind.label}"]
            assert sum(shares[kind.label] for shares in counted.values()) == pytest.approx(
                (rows[f"events_{rule}"] * share).sum()
            )
    assert summary["counts"]["adaptive"]["events"] > 0


@pytest.mark.parametrize(("value", "label", "other"), [(0.0, "nop", "broadcast"), (1.0, "broadcast", "nop")])
def test_a_planted_sink_gets_its_label(value: float, label: str, other: str, data: ImageData, tmp_path: Path) -> None:
    """CLS is large along one direction; every query of head 2 in block 1 attends to it, and its value is given."""
    task = Classify(BackboneConfig(qkv_bias=True))
    model: Any = task.backbone
    attn, direction = model.blocks[1].attn, torch.zeros(model.embed_dim)
    direction[:2] = torch.tensor([1.0, -1.0])  # with zero mean, because the norm subtracts the mean
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


def test_later_measurements_of_a_model_are_not_rebuilt_but_name_the_block_that_is_not_finite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rebuilt: list[int] = []

    def counted(view: BlockView, *args: Any) -> Tensor:
        rebuilt.append(view.index)
        return rebuild_error(view, *args)

    monkeypatch.setattr(tap_module, "rebuild_error", counted)
    model, other, images = make(depth=3).eval(), make(depth=3, seed=1).eval(), noise(4, 1, 28, 28)
    sinks = SinkDiagnostics(images, batch_size=2)
    for step, measured in enumerate((model, model, other, model)):
        sinks.measure(measured, step)
    assert rebuilt == 3 * [0, 1, 2]
    with torch.no_grad():
        model.blocks[1].mlp.fc2.bias[0] = torch.nan
    with pytest.raises(NonfiniteError, match="block 1: its activations are NaN or infinite"):
        sinks.measure(model, 5)

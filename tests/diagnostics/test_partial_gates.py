"""A gate in some blocks only: every block is measured, and an absent gate changes nothing."""

from typing import Any

import numpy as np
import pytest
from variants import make, noise, perturbed

from sinkablate.config import AttentionConfig, ThresholdConfig
from sinkablate.diagnostics.labels import label_all, qualified_all
from sinkablate.diagnostics.probe import check, probe
from sinkablate.diagnostics.rules import Label
from sinkablate.diagnostics.summary import scalars

T = ThresholdConfig(adaptive_min=0.01, routed_min=0.2, rel_update_min=0.0)
SHAPE: dict[str, Any] = {"depth": 3, "layers": (0,)}


@pytest.mark.parametrize("layer", [0, 1, -1])
@pytest.mark.parametrize(
    ("position", "prefix", "of"), [("output", "gated_", "stable_rank"), ("value", "raw_", "ratio_out")]
)
def test_gated_blocks_are_measured_and_other_blocks_are_unchanged(
    layer: int, position: Any, prefix: str, of: str
) -> None:
    gate = AttentionConfig(gate="headwise", gate_position=position)
    model = perturbed(make(**SHAPE | {"layers": (layer,)}, attention=gate))
    check(model, noise(1, 1, 28, 28))
    heads = probe(model, noise(4, 1, 28, 28), np.arange(4), T)[0].heads
    gated = layer % 3
    same = [np.array_equal(heads[f"{prefix}{of}"][:, b], heads[of][:, b], equal_nan=True) for b in range(3)]
    assert same == [b != gated for b in range(3)]
    assert [bool(np.isnan(heads["gate_open"][:, b]).all()) for b in range(3)] == [b != gated for b in range(3)]


def test_effective_labels_and_scalars_exist() -> None:
    model = perturbed(make(**SHAPE, attention=AttentionConfig(gate="headwise")))
    records = probe(model, noise(4, 1, 28, 28), np.arange(4), T)[0]
    labels = label_all(records, T)
    for name in ("causal", "lejepa", "def1_0.5", "adaptive"):
        assert f"effective_{name}" in labels
    assert np.array_equal(labels["effective_adaptive"][:, 1:], labels["adaptive"][:, 1:])
    assert "gate/open" in scalars(records, T) or np.isnan(records.heads["gate_open"][:, 1:]).all()


def test_effective_broadcasts_are_qualified_by_the_gated_update() -> None:
    model = perturbed(make(**SHAPE, attention=AttentionConfig(gate="headwise")))
    records = probe(model, noise(4, 1, 28, 28), np.arange(4), T)[0]
    records.heads["rel_update"][:] = 0.5
    records.heads["gated_rel_update"][:] = 0.001
    for name in ("ratio_out", "gated_ratio_out", "routed_frac"):
        records.heads[name][:] = 1
    for name in ("stable_rank", "gated_stable_rank"):
        records.heads[name][:] = 1
    strict = ThresholdConfig()
    labels = label_all(records, strict)
    assert (labels["effective_causal"] == Label.BROADCAST).all()
    assert qualified_all(labels, records, strict)["causal"].all()
    assert not qualified_all(labels, records, strict)["effective_causal"].any()

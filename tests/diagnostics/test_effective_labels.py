"""A factor moved between a gate and the output map changes no effective label; a closing gate does."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from known_views import KINDS, random_view, sink_weights, values, view_of

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.heads import measure
from sinkablate.diagnostics.labels import apply
from sinkablate.diagnostics.rules import Label, all_rules
from sinkablate.diagnostics.view import BlockView

T = ThresholdConfig(adaptive_min=0.01, routed_min=0.3, event_min=0.5)
GATES = [kind for kind in KINDS if kind.endswith("wise")]
RULES = all_rules(T, gated=True)


def labels(view: BlockView) -> dict[str, Any]:
    """Labels of every rule that the view has quantities for."""
    measured = {name: x.numpy() for name, x in measure(view, T).heads.items()}
    return {rule.name: apply(rule, measured) for rule in RULES if rule.ratio in measured}


@pytest.mark.parametrize("kind", GATES)
def test_a_factor_moved_between_gate_and_output_map_leaves_every_label(kind: str) -> None:
    view = random_view(kind, heads=6, batch=8)
    assert view.gate is not None
    factor = torch.tensor([0.01, 0.1, 0.5, 1.0, 3.0, 40.0], dtype=torch.float64)
    moved = replace(
        view,
        gate=view.gate * factor.view(-1, 1, 1),
        v=view.v * factor.view(-1, 1, 1) if view.gates_values else view.v,
        out_map=view.out_map / factor.view(-1, 1, 1),
    )
    before, after = labels(view), labels(moved)
    assert any(name.startswith("effective") for name in before) == (not view.gates_values)
    prefix = "" if view.gates_values else "effective_"
    assert len(np.unique(before[f"{prefix}adaptive"])) >= 3
    for name, verdicts in before.items():
        if name.startswith(prefix):
            np.testing.assert_array_equal(after[name], verdicts, err_msg=name)


def test_a_factor_moved_between_gate_and_output_map_leaves_the_quiet_queries() -> None:
    """With one openness everywhere, what passes the gate is as quiet as what reaches it."""
    view = random_view("softmax", heads=6, batch=8)
    gated = replace(view, gate=torch.full((8, 6, 17, 1), 0.01, dtype=torch.float64), out_map=view.out_map / 0.01)
    got, plain = measure(gated, T).heads["gated_quiet_frac"], measure(view, T).heads["quiet_frac"]
    assert plain.unique().numel() > 3
    torch.testing.assert_close(got, plain)


def test_the_sink_and_ordinary_values_pass_the_same_mean_gate() -> None:
    """Neighboring queries open different channels: the mean gate passes half of each channel of every value."""
    v = torch.ones(1, 1, 12, 2, dtype=torch.float64)
    v[..., 0, :] = 0.15
    gate = torch.eye(2, dtype=torch.float64).repeat(6, 1)[None, None]
    got = measure(view_of(sink_weights(12, 0.95), v, gate=gate), T).heads
    assert got["gated_ratio_out"].item() == pytest.approx(0.15)
    assert labels(view_of(sink_weights(12, 0.95), v, gate=gate))["effective_causal"].item() == Label.NOP


def test_a_headwise_gate_weighs_the_norm_of_the_sink_by_its_mean_over_the_routed_queries() -> None:
    view = random_view("headwise", heads=6, batch=8)
    weights, norms = view.weights(), torch.einsum("hod,bhnd->bhno", view.out_map, view.v).norm(dim=-1)
    got = measure(view, T).heads
    at, size = got["sink_idx"][..., None], weights / weights.sum(-2, keepdim=True)
    routed = weights.gather(-1, at[..., None].expand(*weights.shape[:-1], 1)).squeeze(-1) >= T.routed_min
    handed = (view.gate.squeeze(-1) * routed).sum(-1) / routed.sum(-1) * norms.gather(-1, at).squeeze(-1)
    passed = (size.mT @ view.gate).squeeze(-1) * norms
    others = (passed.sum(-1) - passed.gather(-1, at).squeeze(-1)) / 16
    torch.testing.assert_close(got["gated_ratio_out"], handed / others, equal_nan=True, rtol=1e-12, atol=0)


def test_a_constant_gate_leaves_a_broadcast() -> None:
    weights, v = sink_weights(10, 0.95), values(10)
    for openness in (1.0, 0.15, 0.01):
        gate = torch.full((1, 1, 10, 1), openness, dtype=torch.float64)
        got = labels(view_of(weights, v, gate=gate))
        assert got["effective_causal"].item() == got["causal"].item() == Label.BROADCAST


def test_a_gate_that_closes_on_the_routed_queries_makes_a_nop() -> None:
    """Nine of ten queries give the sink .99 and find the gate almost closed; the tenth reads the other tokens."""
    weights = sink_weights(10, 0.99)
    weights[..., 9, :] = torch.tensor([0.01, *[0.11] * 9], dtype=torch.float64)
    gate = torch.full((1, 1, 10, 1), 0.02, dtype=torch.float64)
    gate[..., 9, :] = 1
    got = labels(view_of(weights, values(10), gate=gate))
    assert got["causal"].item() == Label.BROADCAST
    assert got["effective_causal"].item() == Label.NOP


def test_a_column_without_queries_has_the_mean_openness() -> None:
    weights = sink_weights(10, 1.0)
    gate = torch.linspace(0.1, 0.9, 10, dtype=torch.float64).view(1, 1, 10, 1)
    got = measure(view_of(weights, values(10), gate=gate), T).heads
    torch.testing.assert_close(got["gated_ratio_out"], got["ratio_out"])

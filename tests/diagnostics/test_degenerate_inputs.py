"""Per-head quantities of degenerate inputs: uniform, zero, NaN, a single token, a null column."""

from math import log

import numpy as np
import pytest
import torch
from known_views import NULL, first_head, random_view, sink_weights, values, view_of

from sinkablate.vit.tokens import TokenType

pytestmark = pytest.mark.filterwarnings("error")

NAN = float("nan")


def test_all_mass_on_one_token():
    got = first_head(view_of(sink_weights(8, 1.0, 3), values(8)))
    assert (got["sink_idx"], got["mass"], got["routed_frac"], got["min_a"], got["cond_mass"]) == (3, 1, 1, 1, 1)
    assert got["entropy"] == 0
    assert got["stable_rank"] == pytest.approx(1)


@pytest.mark.parametrize("n", [7, 54, 197, 201])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_attention_is_a_tie_that_the_first_token_wins(n, dtype):
    got = first_head(view_of(torch.full((1, 1, n, n), 1 / n, dtype=dtype), values(n).to(dtype)))
    assert (got["sink_idx"], got["routed_frac"]) == (0, 0)
    assert got["entropy"] == pytest.approx(1, abs=1e-6)
    assert got["stable_rank"] == pytest.approx(1)
    assert np.isnan([got["cond_mass"], got["routed_stable_rank"]]).all()


def test_identical_values_have_ratio_one():
    got = first_head(view_of(sink_weights(9, 0.7), values(1).expand(1, 1, 9, 5)))
    assert got["ratio_head"] == pytest.approx(1)
    assert got["ratio_out"] == pytest.approx(1)
    assert got["stable_rank"] == pytest.approx(1)


def test_a_huge_sink_value_does_not_swallow_the_others():
    v = values(50).float()
    v[:, :, 0] *= 1e9
    got = first_head(view_of(sink_weights(50, 0.9).float(), v))
    others = v[0, 0, 1:].double().norm(dim=-1).mean()
    assert got["ratio_head"] == pytest.approx(float(v[0, 0, 0].double().norm() / others), rel=1e-5)


def test_zero_values_are_undefined_not_zero():
    got = first_head(view_of(sink_weights(6, 0.9), torch.zeros(1, 1, 6, 5, dtype=torch.float64)))
    for name in ("ratio_head", "ratio_out", "stable_rank", "routed_stable_rank", "rank1_energy", "quiet_frac"):
        assert np.isnan(got[name]), name
    assert (got["update_norm"], got["sink_value_norm"], got["rel_update"], got["routed_frac"]) == (0, 0, 0, 1)


def test_only_the_sink_has_a_value():
    v = torch.zeros(1, 1, 6, 5, dtype=torch.float64)
    v[..., 0, 0] = 1
    got = first_head(view_of(sink_weights(6, 0.9), v))
    assert np.isnan([got["ratio_head"], got["ratio_out"]]).all()
    assert got["stable_rank"] == pytest.approx(1)


def test_a_zero_residual_has_no_relative_update():
    got = first_head(view_of(sink_weights(6, 0.9), values(6), residual=torch.zeros(1, 6, 5, dtype=torch.float64)))
    assert np.isnan(got["rel_update"])


@pytest.mark.parametrize("gate_width", [0, 1, 5])
def test_a_single_token(gate_width):
    gate = torch.full((1, 1, 1, gate_width), 0.5, dtype=torch.float64) if gate_width else None
    got = first_head(view_of(torch.ones(1, 1, 1, 1, dtype=torch.float64), values(1), gate=gate))
    assert np.isnan([got["ratio_head"], got["ratio_out"], got["entropy"], got["group_routed_frac"]]).all()
    assert (got["sink_idx"], got["mass"]) == (0, 1)
    assert got["stable_rank"] == pytest.approx(1)
    if gate_width:
        assert np.isnan([got["gated_ratio_out"], got["gate_corr"]]).all()


def test_dead_rows_are_routed_nowhere():
    got = first_head(
        view_of(torch.zeros(1, 1, 6, 6, dtype=torch.float64), values(6), rows_sum_to_one=False, rows_at_most_one=False)
    )
    assert (got["dead_rows"], got["mass"], got["routed_frac"], got["min_a"], got["row_mass"]) == (1, 0, 0, 0, 0)
    assert np.isnan([got["entropy"], got["stable_rank"], got["cond_mass"]]).all()
    assert got["quiet_frac"] == 1


def test_nan_weights_do_not_read_as_no_event():
    got = first_head(view_of(torch.full((1, 1, 6, 6), NAN, dtype=torch.float64), values(6)))
    assert np.isnan([got["mass"], got["routed_frac"], got["min_a"], got["stable_rank"]]).all()


def test_split_registers_are_a_group_event():
    n = 9
    weights = torch.full((n, n), 0.04 / 5, dtype=torch.float64)
    weights[:, 1:5] = 0.24
    got = first_head(view_of(weights[None, None], values(n), registers=4))
    assert (got["routed_frac"], got["group_routed_frac"], got["topk_routed_frac"]) == (0, 1, 1)
    assert got["sink_type"] == TokenType.REGISTER


def test_a_null_column_is_not_among_the_others():
    n = 5
    weights = torch.zeros(1, 1, n, n + 1, dtype=torch.float64)
    weights[..., -1] = 0.75
    weights[..., 0] = 0.25
    v = values(n + 1)
    v[..., -1, :] = 0
    got = first_head(view_of(weights, v, extra=NULL, takes_null=True))
    assert (got["sink_type"], got["ratio_out"], got["sink_value_norm"]) == (TokenType.NULL, 0, 0)
    assert (got["row_mass"], got["null_mass"]) == (0.25, 0.75)
    assert got["entropy"] == pytest.approx((0.75 * log(4 / 3) + 0.25 * log(4)) / log(n + 1))


def test_a_constant_gate_has_no_correlation():
    got = first_head(
        view_of(
            random_view("softmax", batch=1, heads=1).weights(),
            values(17),
            gate=torch.full((1, 1, 17, 5), 0.88, dtype=torch.float64),
        )
    )
    assert got["gate_open"] == pytest.approx(0.88)
    assert np.isnan(got["gate_corr"])

import warnings
from dataclasses import replace
from math import log

import numpy as np
import pytest
import torch
from direct import KINDS, NULL, direct, random_view, view_of
from torch import Tensor

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.heads import measure, payload_constancy, sink_payload
from sinkablate.diagnostics.norms import mass_by_type
from sinkablate.diagnostics.routing import row_entropy, softmax_entropy
from sinkablate.diagnostics.updates import largest_eigenvalue, stable_rank
from sinkablate.diagnostics.view import BlockView, head_factor
from sinkablate.vit.tokens import TokenType

T = ThresholdConfig()
NAN = float("nan")
SCALE_FREE = ("ratio_head", "ratio_out", "stable_rank", "routed_stable_rank", "rank1_energy", "quiet_frac", "entropy")


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def one(view: BlockView) -> dict[str, float]:
    """The quantities of the first image and head."""
    return {name: float(x[0, 0]) for name, x in measure(view, T).heads.items()}


def constancy(payload: Tensor) -> Tensor:
    """Payload constancy (H,) of payloads (B, H, d)."""
    return payload_constancy(payload.sum(0), payload.square().sum((0, -1)), len(payload))


def sink_weights(n: int, a: float, s: int = 0) -> Tensor:
    """Every query gives a to column s and spreads the rest, (1, 1, n, n)."""
    weights = torch.full((n, n), (1 - a) / (n - 1), dtype=torch.float64)
    weights[:, s] = a
    return weights[None, None]


def values(n: int, d: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(1, 1, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- against the definitions


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("kind", KINDS)
def test_every_quantity_equals_its_definition(kind, dtype, tolerance):
    view = random_view(kind, dtype=dtype)
    measured, expected = measure(view, T).heads, direct(view, T)
    assert measured.keys() == expected.keys()
    for name, x in measured.items():
        assert x.dtype == (torch.int64 if name in ("sink_idx", "sink_type") else dtype), name
        np.testing.assert_allclose(x.numpy(), expected[name], rtol=tolerance, atol=tolerance * 1e-1, err_msg=name)


@pytest.mark.parametrize("kind", ["softmax", "elementwise"])
def test_wide_heads_in_fp32(kind):
    view = random_view(kind, batch=1, heads=3, n=70, d=64, dtype=torch.float32)
    measured, expected = measure(view, T).heads, direct(view, T)
    for name, x in measured.items():
        np.testing.assert_allclose(x.numpy(), expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_thresholds_are_fields():
    view = random_view("softmax")
    t = ThresholdConfig(routed_min=0.8, quiet_max=0.6, group_top_k=2)
    measured, expected = measure(view, t).heads, direct(view, t)
    for name in (
        "routed_frac",
        "cond_mass",
        "routed_stable_rank",
        "quiet_frac",
        "group_routed_frac",
        "topk_routed_frac",
    ):
        np.testing.assert_allclose(measured[name].numpy(), expected[name], rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("spectrum", [[1.0] * 8, [1, 1 - 1e-6, 1 - 1e-5, 0.5], [1, 1e-8], [1e-20, 1e-20, 0], [3.0]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_largest_eigenvalue_whatever_the_gaps(spectrum, dtype):
    d = len(spectrum)
    q, _ = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64))
    gram = (q * torch.tensor(spectrum, dtype=torch.float64)) @ q.T
    assert float(largest_eigenvalue(gram.to(dtype))) == pytest.approx(max(spectrum), rel=4e-6)


# ---- invariances


@pytest.mark.parametrize("kind", ["softmax", "null", "kv_bias", "signed", "elementwise", "value_elementwise"])
def test_chunks_change_nothing(kind):
    view = random_view(kind)
    whole, pieces = measure(view, T), measure(view, T, budget=1)
    for before, after in ((whole.heads, pieces.heads), (whole.mass, pieces.mass)):
        for name, x in before.items():
            torch.testing.assert_close(after[name], x, rtol=1e-12, atol=1e-14, equal_nan=True, msg=name)


@pytest.mark.parametrize("kind", ["softmax", "signed", "elementwise"])
def test_permuting_patches_moves_the_sink_and_nothing_else(kind):
    view = random_view(kind)
    prefix, n = view.layout.num_prefix, view.layout.num_tokens
    shuffled = torch.randperm(n - prefix, generator=torch.Generator().manual_seed(0))
    order = torch.cat([torch.arange(prefix), prefix + shuffled])
    weights = view.weights()[:, :, order][..., order]
    moved = replace(
        view,
        v=view.v[:, :, order],
        residual=view.residual[:, order],
        weigh=lambda _q, _k, images, heads: weights[images, heads],
        logits=None,
        gate=None if view.gate is None else view.gate[:, :, order],
    )
    before, after = measure(view, T).heads, measure(moved, T).heads
    assert torch.equal(order[after["sink_idx"]], before["sink_idx"])
    for name in before.keys() - {"sink_idx"}:
        torch.testing.assert_close(after[name], before[name], rtol=1e-9, atol=1e-12, equal_nan=True, msg=name)


@pytest.mark.parametrize("scale", [1e-25, 1e-4, 1e4])
def test_scaling_values_leaves_ratios_and_ranks(scale):
    view = random_view("softmax")
    before, after = measure(view, T).heads, measure(replace(view, v=view.v * scale), T).heads
    for name in SCALE_FREE:
        torch.testing.assert_close(after[name], before[name], rtol=1e-9, atol=0, equal_nan=True, msg=name)
    torch.testing.assert_close(after["update_norm"], before["update_norm"] * scale, rtol=1e-9, atol=0)


def test_ranks_of_tiny_fp32_updates_do_not_underflow():
    rows = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(stable_rank(rows * 1e-25), stable_rank(rows), rtol=1e-5, atol=0)


def test_signed_weights_cancel_in_the_update_but_not_in_the_events():
    weights = torch.tensor([[3.0, -1.0], [3.0, -1.0]], dtype=torch.float64)[None, None]
    v = torch.tensor([[1.0, 0.0], [3.0, 0.0]], dtype=torch.float64)[None, None]
    got = one(view_of(weights, v, rows_sum_to_one=False, rows_at_most_one=False))
    assert (got["mass"], got["routed_frac"], got["min_a"], got["row_mass"]) == (0.75, 1, 0.75, 4)
    assert got["update_norm"] == 0
    assert np.isnan(got["stable_rank"])
    assert np.isnan(got["null_mass"])


# ---- published identities


def eps_sink(n: int, eps: float, s: int) -> Tensor:
    """Every query gives column s at least 1 - eps, (n, n)."""
    g = torch.Generator().manual_seed(1)
    weights = torch.rand(n, n, generator=g, dtype=torch.float64)
    weights[:, s] = 0
    a = 1 - eps * torch.rand(n, 1, generator=g, dtype=torch.float64)
    weights = weights / weights.sum(1, keepdim=True) * (1 - a)
    weights[:, s] = a[:, 0]
    return weights


@pytest.mark.parametrize("eps", [0.5, 0.1, 1e-3])
@pytest.mark.parametrize("aligned", [True, False])
def test_an_eps_sink_is_nearly_its_rank_one_part(eps, aligned):
    n, s = 12, 4
    weights, v = eps_sink(n, eps, s), values(n)
    if aligned:  # no value opposes the sink's
        v = v * torch.where((v * v[..., s : s + 1, :]).sum(-1, keepdim=True) < 0, -1, 1)
    got, out = one(view_of(weights[None, None], v)), weights @ v[0, 0]
    longest, at_sink = v[0, 0].norm(dim=-1).max(), v[0, 0, s].norm()
    assert got["min_a"] >= 1 - eps
    assert (out - weights[:, s, None] * v[0, 0, s]).norm(dim=-1).max() <= eps * longest
    # sigma_1 >= sqrt(N) (1 - eps) ||v_s|| as published needs values that do not oppose v_s
    sigma = (got["rank1_energy"] * out.square().sum()).sqrt()
    assert sigma >= n**0.5 * ((1 - eps) * at_sink - (0 if aligned else eps * longest))


def test_opposite_values_undo_an_eps_sink():
    v = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)[None, None]
    assert one(view_of(sink_weights(2, 0.5), v))["update_norm"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_rank_one_energy_is_the_inverse_of_the_stable_rank(kind):
    got = measure(random_view(kind), T).heads
    torch.testing.assert_close(got["rank1_energy"] * got["stable_rank"], torch.ones_like(got["mass"]))
    assert (got["stable_rank"] >= 1 - 1e-12).all()


def test_an_elementwise_gate_makes_a_perfect_sink_slightly_more_than_rank_one():
    n, d = 40, 16
    g = torch.Generator().manual_seed(0)
    gate = (0.5 * torch.randn(1, 1, n, d, generator=g, dtype=torch.float64) + 2).sigmoid()
    got = one(view_of(sink_weights(n, 1.0), values(n, d), gate=gate))
    assert got["stable_rank"] == pytest.approx(1)
    assert 1.001 < got["gated_stable_rank"] < 1.17


def test_a_headwise_gate_keeps_a_perfect_sink_at_rank_one():
    gate = torch.linspace(0.1, 0.9, 10, dtype=torch.float64).view(1, 1, 10, 1)
    got = one(view_of(sink_weights(10, 1.0), values(10), gate=gate))
    assert got["gated_stable_rank"] == pytest.approx(1)
    assert got["gated_ratio_out"] == pytest.approx(0.5 * got["ratio_out"])


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 30.0, 1000.0])
def test_entropy_from_logits_is_that_of_their_softmax(scale):
    """Two ways, and float32 against float64; rows from uniform to one-hot, shifted far from zero."""
    logits = scale * torch.randn(2, 3, 9, 21, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 50
    weights = logits.softmax(-1)
    expected = row_entropy(weights, weights.sum(-1))
    torch.testing.assert_close(softmax_entropy(weights, logits.clone()), expected, atol=1e-12, rtol=1e-9)
    single = logits.float()
    close = torch.special.entr(single.double().softmax(-1)).sum(-1).mean(-1) / log(21)
    got = softmax_entropy(single.softmax(-1), single.clone())
    torch.testing.assert_close(got.double(), close, atol=1e-6, rtol=1e-5)


# ---- degenerate inputs


def test_all_mass_on_one_token():
    got = one(view_of(sink_weights(8, 1.0, 3), values(8)))
    assert (got["sink_idx"], got["mass"], got["routed_frac"], got["min_a"], got["cond_mass"]) == (3, 1, 1, 1, 1)
    assert got["entropy"] == 0
    assert got["stable_rank"] == pytest.approx(1)


@pytest.mark.parametrize("n", [7, 54, 197, 201])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_attention_is_a_tie_that_the_first_token_wins(n, dtype):
    got = one(view_of(torch.full((1, 1, n, n), 1 / n, dtype=dtype), values(n).to(dtype)))
    assert (got["sink_idx"], got["routed_frac"]) == (0, 0)
    assert got["entropy"] == pytest.approx(1, abs=1e-6)
    assert got["stable_rank"] == pytest.approx(1)
    assert np.isnan([got["cond_mass"], got["routed_stable_rank"]]).all()


def test_identical_values_have_ratio_one():
    got = one(view_of(sink_weights(9, 0.7), values(1).expand(1, 1, 9, 5)))
    assert got["ratio_head"] == pytest.approx(1)
    assert got["ratio_out"] == pytest.approx(1)
    assert got["stable_rank"] == pytest.approx(1)


def test_a_huge_sink_value_does_not_swallow_the_others():
    v = values(50).float()
    v[:, :, 0] *= 1e9
    got = one(view_of(sink_weights(50, 0.9).float(), v))
    others = v[0, 0, 1:].double().norm(dim=-1).mean()
    assert got["ratio_head"] == pytest.approx(float(v[0, 0, 0].double().norm() / others), rel=1e-5)


def test_zero_values_are_undefined_not_zero():
    got = one(view_of(sink_weights(6, 0.9), torch.zeros(1, 1, 6, 5, dtype=torch.float64)))
    for name in ("ratio_head", "ratio_out", "stable_rank", "routed_stable_rank", "rank1_energy", "quiet_frac"):
        assert np.isnan(got[name]), name
    assert (got["update_norm"], got["sink_value_norm"], got["rel_update"], got["routed_frac"]) == (0, 0, 0, 1)


def test_only_the_sink_has_a_value():
    v = torch.zeros(1, 1, 6, 5, dtype=torch.float64)
    v[..., 0, 0] = 1
    got = one(view_of(sink_weights(6, 0.9), v))
    assert np.isnan([got["ratio_head"], got["ratio_out"]]).all()
    assert got["stable_rank"] == pytest.approx(1)


def test_a_zero_residual_has_no_relative_update():
    got = one(view_of(sink_weights(6, 0.9), values(6), residual=torch.zeros(1, 6, 5, dtype=torch.float64)))
    assert np.isnan(got["rel_update"])


@pytest.mark.parametrize("gate_width", [0, 1, 5])
def test_a_single_token(gate_width):
    gate = torch.full((1, 1, 1, gate_width), 0.5, dtype=torch.float64) if gate_width else None
    got = one(view_of(torch.ones(1, 1, 1, 1, dtype=torch.float64), values(1), gate=gate))
    assert np.isnan([got["ratio_head"], got["ratio_out"], got["entropy"], got["group_routed_frac"]]).all()
    assert (got["sink_idx"], got["mass"]) == (0, 1)
    assert got["stable_rank"] == pytest.approx(1)
    if gate_width:
        assert np.isnan([got["gated_ratio_out"], got["gate_corr"]]).all()


def test_dead_rows_are_routed_nowhere():
    got = one(
        view_of(torch.zeros(1, 1, 6, 6, dtype=torch.float64), values(6), rows_sum_to_one=False, rows_at_most_one=False)
    )
    assert (got["dead_rows"], got["mass"], got["routed_frac"], got["min_a"], got["row_mass"]) == (1, 0, 0, 0, 0)
    assert np.isnan([got["entropy"], got["stable_rank"], got["cond_mass"]]).all()
    assert got["quiet_frac"] == 1


def test_nan_weights_do_not_read_as_no_event():
    got = one(view_of(torch.full((1, 1, 6, 6), NAN, dtype=torch.float64), values(6)))
    assert np.isnan([got["mass"], got["routed_frac"], got["min_a"], got["stable_rank"]]).all()


def test_split_registers_are_a_group_event():
    n = 9
    weights = torch.full((n, n), 0.04 / 5, dtype=torch.float64)
    weights[:, 1:5] = 0.24
    got = one(view_of(weights[None, None], values(n), registers=4))
    assert (got["routed_frac"], got["group_routed_frac"], got["topk_routed_frac"]) == (0, 1, 1)
    assert got["sink_type"] == TokenType.REGISTER


def test_a_null_column_is_not_among_the_others():
    n = 5
    weights = torch.zeros(1, 1, n, n + 1, dtype=torch.float64)
    weights[..., -1] = 0.75
    weights[..., 0] = 0.25
    v = values(n + 1)
    v[..., -1, :] = 0
    got = one(view_of(weights, v, extra=NULL, takes_null=True))
    assert (got["sink_type"], got["ratio_out"], got["sink_value_norm"]) == (TokenType.NULL, 0, 0)
    assert (got["row_mass"], got["null_mass"]) == (0.25, 0.75)
    assert got["entropy"] == pytest.approx((0.75 * log(4 / 3) + 0.25 * log(4)) / log(n + 1))


def test_a_constant_gate_has_no_correlation():
    got = one(
        view_of(
            random_view("softmax", batch=1, heads=1).weights(),
            values(17),
            gate=torch.full((1, 1, 17, 5), 0.88, dtype=torch.float64),
        )
    )
    assert got["gate_open"] == pytest.approx(0.88)
    assert np.isnan(got["gate_corr"])


# ---- payload and mass


def test_payload_has_the_norms_and_angles_of_u():
    view = random_view("softmax")
    got = measure(view, T)
    u = torch.einsum("hoc,bhnc->bhno", view.out_map, view.v)
    at = u.gather(2, got.heads["sink_idx"][..., None, None].expand(-1, -1, 1, u.shape[-1])).squeeze(2)
    torch.testing.assert_close(
        torch.einsum("bhc,ahc->hba", got.payload, got.payload), torch.einsum("bho,aho->hba", at, at)
    )
    torch.testing.assert_close(sink_payload(view, got.heads["sink_idx"]), got.payload)
    expected = at.mean(0).square().sum(-1) / at.square().sum(-1).mean(0)
    torch.testing.assert_close(constancy(got.payload), expected)


def test_payload_constancy_of_constants_and_of_nothing():
    constant = torch.ones(5, 1, 3)
    opposite = torch.tensor([1.0, -1.0]).view(2, 1, 1).expand(2, 1, 3)
    assert float(constancy(constant)) == pytest.approx(1)
    assert float(constancy(opposite)) == 0
    assert torch.isnan(constancy(0 * constant)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_mass_by_type_is_the_columns_summed(kind):
    view = random_view(kind)
    size = view.weights().abs()
    if not view.rows_sum_to_one:
        size = size / size.sum(-1, keepdim=True).clamp_min(1e-300)
    columns, types = size.mean((1, 2)), view.column_types()
    got = measure(view, T).mass
    assert list(got) == ["cls", "register", "patch", "null", "kv_bias"]
    for kind_of in TokenType:
        if (types == kind_of).any():
            torch.testing.assert_close(got[kind_of.label], columns[:, types == kind_of].sum(-1))
        else:
            assert got[kind_of.label].isnan().all()


def test_mass_of_a_model_without_registers():
    view = random_view("softmax", registers=0)
    got = mass_by_type(view.weights().mean(2), view.layout)
    assert got["register"].isnan().all()
    torch.testing.assert_close(got["cls"] + got["patch"], torch.ones(3, dtype=torch.float64))


def test_head_factor_of_a_weak_direction_keeps_its_norms():
    W = torch.randn(1, 24, 6, generator=torch.Generator().manual_seed(0))
    W[..., 5] = W[..., 0] * (1 + 1e-4)
    x = torch.randn(6, generator=torch.Generator().manual_seed(1))
    exact = (W.double() @ x.double()).norm()
    assert float((head_factor(W)[0] @ x).norm()) == pytest.approx(float(exact), rel=1e-5)


@pytest.mark.parametrize("rest", [0.0, 0.5, 0.9, 0.99, 0.998, 0.999, 0.9999, 0.999999, 1.0])
@pytest.mark.parametrize("width", [16, 64])
def test_the_largest_eigenvalue_of_steep_and_flat_spectra(rest, width):
    q = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    spectrum = torch.full((width,), rest, dtype=torch.float64)
    spectrum[0] = 1.0
    gram = ((q * spectrum) @ q.T).float()[None]
    assert float(largest_eigenvalue(gram)) == pytest.approx(1.0, rel=1e-5)

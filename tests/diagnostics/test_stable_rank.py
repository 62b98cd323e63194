"""Stable ranks, the largest eigenvalue behind them, and published bounds for sinks."""

import pytest
import torch
from known_views import KINDS, T, first_head, random_view, sink_weights, values, view_of
from torch import Tensor

from sinkablate.diagnostics import head_factor, updates
from sinkablate.diagnostics.heads import measure
from sinkablate.diagnostics.updates import largest_eigenvalue, stable_ranks

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("spectrum", [[1.0] * 8, [1, 1 - 1e-6, 1 - 1e-5, 0.5], [1, 1e-8], [1e-20, 1e-20, 0], [3.0]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_largest_eigenvalue_whatever_the_gaps(spectrum, dtype):
    d = len(spectrum)
    q, _ = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64))
    gram = (q * torch.tensor(spectrum, dtype=torch.float64)) @ q.T
    assert float(largest_eigenvalue(gram.to(dtype))) == pytest.approx(max(spectrum), rel=4e-6)


def test_ranks_of_tiny_fp32_updates_do_not_underflow():
    rows = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(stable_ranks(rows * 1e-25), stable_ranks(rows), rtol=1e-5, atol=0)


@pytest.mark.parametrize("host_reads", [True, False])
def test_the_rank_of_routed_rows_that_write_next_to_nothing_does_not_underflow(host_reads, monkeypatch):
    monkeypatch.setattr(updates, "host_can_read", lambda _: host_reads)
    rows = torch.randn(2, 20, 6, generator=torch.Generator().manual_seed(0))
    routed = torch.arange(20).expand(2, 20) < 12
    expected = stable_ranks(rows[:, :12])[0]
    tiny = torch.where(routed[..., None], rows * 1e-25, rows)
    torch.testing.assert_close(stable_ranks(tiny, routed)[1], expected, rtol=1e-5, atol=0)
    assert stable_ranks(rows, routed & False)[1].isnan().all()


@pytest.mark.parametrize("rows", [6, 40, 700])
def test_the_factor_of_an_output_map_does_not_depend_on_how_it_is_computed(rows, monkeypatch):
    """The payloads R v of several ranks and devices are added up, so R must not differ in its signs."""
    out_map = torch.randn(3, rows, 6, generator=torch.Generator().manual_seed(rows))
    whole = head_factor.head_factor(out_map)
    monkeypatch.setattr(head_factor, "MOST_ROWS", 20)
    torch.testing.assert_close(head_factor.head_factor(out_map), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(whole.mT @ whole, out_map.mT @ out_map, rtol=1e-5, atol=1e-4)
    assert (whole.diagonal(dim1=-2, dim2=-1) > 0).all()


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
def test_the_update_of_an_eps_sink_is_close_to_rank_one(eps, aligned):
    n, s = 12, 4
    weights, v = eps_sink(n, eps, s), values(n)
    if aligned:  # no value opposes the sink's
        v = v * torch.where((v * v[..., s : s + 1, :]).sum(-1, keepdim=True) < 0, -1, 1)
    got, out = first_head(view_of(weights[None, None], v)), weights @ v[0, 0]
    longest, at_sink = v[0, 0].norm(dim=-1).max(), v[0, 0, s].norm()
    assert got["min_a"] >= 1 - eps
    assert (out - weights[:, s, None] * v[0, 0, s]).norm(dim=-1).max() <= eps * longest
    # sigma_1 >= sqrt(N) (1 - eps) ||v_s|| as published needs values that do not oppose v_s
    sigma = (got["rank1_energy"] * out.square().sum()).sqrt()
    assert sigma >= n**0.5 * ((1 - eps) * at_sink - (0 if aligned else eps * longest))


def test_opposite_values_cancel_an_eps_sink():
    v = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)[None, None]
    assert first_head(view_of(sink_weights(2, 0.5), v))["update_norm"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_rank_one_energy_is_the_inverse_of_the_stable_rank(kind):
    got = measure(random_view(kind), T).heads
    torch.testing.assert_close(got["rank1_energy"] * got["stable_rank"], torch.ones_like(got["mass"]))
    assert (got["stable_rank"] >= 1 - 1e-12).all()


def test_an_elementwise_gate_makes_a_perfect_sink_slightly_more_than_rank_one():
    n, d = 40, 16
    g = torch.Generator().manual_seed(0)
    gate = (0.5 * torch.randn(1, 1, n, d, generator=g, dtype=torch.float64) + 2).sigmoid()
    got = first_head(view_of(sink_weights(n, 1.0), values(n, d), gate=gate))
    assert got["stable_rank"] == pytest.approx(1)
    assert 1.001 < got["gated_stable_rank"] < 1.17


def test_a_headwise_gate_keeps_a_perfect_sink_at_rank_one():
    gate = torch.linspace(0.1, 0.9, 10, dtype=torch.float64).view(1, 1, 10, 1)
    got = first_head(view_of(sink_weights(10, 1.0), values(10), gate=gate))
    assert got["gated_stable_rank"] == pytest.approx(1)
    assert got["gated_ratio_out"] == pytest.approx(got["ratio_out"])  # all values have the same queries


@pytest.mark.parametrize("rest", [0.0, 0.5, 0.9, 0.99, 0.998, 0.999, 0.9999, 0.999999, 1.0])
@pytest.mark.parametrize("width", [16, 64])
def test_the_largest_eigenvalue_of_steep_and_flat_spectra(rest, width):
    q = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    spectrum = torch.full((width,), rest, dtype=torch.float64)
    spectrum[0] = 1.0
    gram = ((q * spectrum) @ q.T).float()[None]
    assert float(largest_eigenvalue(gram)) == pytest.approx(1.0, rel=1e-5)

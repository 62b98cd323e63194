"""Per-head quantities equal their definitions, and do not depend on chunks, the order of patches or the scale."""

from dataclasses import replace
from math import log

import numpy as np
import pytest
import torch
from direct import direct
from known_views import KINDS, NULL, T, first_head, random_view, view_of

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.entropy import mean_entropy, row_entropy
from sinkablate.diagnostics.heads import measure
from sinkablate.diagnostics.routing import Routing, sum_weights
from sinkablate.diagnostics.view import Logits

pytestmark = pytest.mark.filterwarnings("error")

SCALE_FREE = ("ratio_head", "ratio_out", "stable_rank", "routed_stable_rank", "rank1_energy", "quiet_frac", "entropy")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("kind", KINDS)
def test_every_quantity_equals_its_definition(kind, dtype, tolerance):
    view = random_view(kind, dtype=dtype)
    measured, expected = measure(view, T).heads, direct(view, T)
    assert measured.keys() == expected.keys()
    for name, x in measured.items():
        assert x.dtype == (torch.int64 if name in ("sink_idx", "sink_type") else dtype), name
        atol = tolerance if name == "gate_corr" else tolerance * 1e-1  # a correlation, of almost constant weights
        np.testing.assert_allclose(x.numpy(), expected[name], rtol=tolerance, atol=atol, err_msg=name)


@pytest.mark.parametrize("kind", ["softmax", "elementwise"])
def test_quantities_of_wide_heads_in_fp32_equal_their_definitions(kind):
    view = random_view(kind, batch=1, heads=3, n=70, d=64, dtype=torch.float32)
    measured, expected = measure(view, T).heads, direct(view, T)
    for name, x in measured.items():
        np.testing.assert_allclose(x.numpy(), expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_quantities_use_the_configured_thresholds():
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


def test_signed_weights_cancel_in_the_update_but_not_in_the_events():
    weights = torch.tensor([[3.0, -1.0], [3.0, -1.0]], dtype=torch.float64)[None, None]
    v = torch.tensor([[1.0, 0.0], [3.0, 0.0]], dtype=torch.float64)[None, None]
    got = first_head(view_of(weights, v, rows_sum_to_one=False, rows_at_most_one=False))
    assert (got["mass"], got["routed_frac"], got["min_a"], got["row_mass"]) == (0.75, 1, 0.75, 4)
    assert got["update_norm"] == 0
    assert np.isnan(got["stable_rank"])
    assert np.isnan(got["null_mass"])


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 30.0, 1000.0])
def test_entropy_from_logits_equals_that_of_their_softmax(scale):
    """Both ways, and float32 against float64; rows range from uniform to one-hot and are shifted far from zero."""
    logits = scale * torch.randn(2, 3, 9, 21, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 50

    def entropy(logits):
        weights = logits.softmax(-1)
        view = view_of(weights, logits.new_ones(2, 3, 21, 2), extra=12 * NULL, logits=Logits(1.0, logits))
        return Routing.of(sum_weights(view, T), view).entropy

    weights = logits.softmax(-1)
    torch.testing.assert_close(
        entropy(logits), mean_entropy(row_entropy(weights, weights.sum(-1)), 21), atol=1e-12, rtol=1e-9
    )
    single = logits.float()
    close = torch.special.entr(single.double().softmax(-1)).sum(-1).mean(-1) / log(21)
    torch.testing.assert_close(entropy(single).double(), close, atol=1e-6, rtol=1e-5)

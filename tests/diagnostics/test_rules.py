"""Labels of the rules on constructed attention and on single quantities."""

import warnings

import numpy as np
import pytest
import torch
from known_views import NULL, view_of

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.heads import measure
from sinkablate.diagnostics.labels import apply
from sinkablate.diagnostics.rules import Label, Rule, effective, rules
from sinkablate.vit.tokens import TokenType

T = ThresholdConfig()
RULES = {rule.name: rule for rule in rules(T)}
NONE, NOP, BROADCAST, OTHER, UNDEFINED = Label
N, D = 20, 6


def weights_to(shares: list[float], s: int = 0, columns: int = N) -> torch.Tensor:
    """Query i gives shares[i] to column s and the rest to itself."""
    weights = torch.zeros(N, columns, dtype=torch.float64)
    for i, a in enumerate(shares):
        weights[i, i] += 1 - a
        weights[i, s] += a
    return weights[None, None]


def values(sink: float, columns: int = N, s: int = 0) -> torch.Tensor:
    """Unit values in random directions, with the sink's value scaled."""
    v = torch.randn(1, 1, columns, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    v = v / v.norm(dim=-1, keepdim=True)
    v[:, :, s] *= sink
    return v


def label(rule: Rule, view) -> Label:
    heads = {name: x.numpy() for name, x in measure(view, T).heads.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Label(int(apply(rule, heads)[0, 0]))


def quantities(**changes: float) -> dict[str, np.ndarray]:
    """The quantities of a clear broadcast by every rule, with changes."""
    base = {
        "routed_frac": 1.0,
        "min_a": 1.0,
        "ratio_head": 1.0,
        "ratio_out": 1.0,
        "stable_rank": 1.0,
        "routed_stable_rank": 1.0,
        "sink_type": 0,
    }
    return {name: np.array([value]) for name, value in (base | changes).items()}


@pytest.mark.parametrize("eps", [0.5, 0.3, 0.2, 0.1])
def test_def1_lejepa_judges_the_events_of_def1_by_the_raw_ratio_alone(eps):
    ours, authors = RULES[f"def1_{eps:g}"], RULES[f"def1_lejepa_{eps:g}"]
    for min_a in (1 - eps, 1 - eps - 0.01):
        event = min_a >= 1 - eps
        assert apply(authors, quantities(min_a=min_a))[0] == (BROADCAST if event else Label.NONE)
    differing = quantities(ratio_head=0.1, ratio_out=0.9, stable_rank=9.0)
    assert (apply(ours, differing)[0], apply(authors, differing)[0]) == (Label.OTHER, NOP)
    assert apply(authors, quantities(stable_rank=9.0))[0] == BROADCAST


def test_rules_take_their_numbers_from_the_thresholds():
    names = [f"{name}_{eps}" for name in ("def1", "def1_lejepa") for eps in (0.5, 0.3, 0.2, 0.1)]
    assert list(RULES) == ["causal", "lejepa", *names, "adaptive"]
    t = ThresholdConfig(event_min=0.8, adaptive_min=0.3, nop_max=0.1, broadcast_min=0.4, rank_max=2, def1_eps=(0.25,))
    causal, lejepa, def1, _, adaptive = rules(t)
    assert str(causal) == (
        "causal: event routed_frac >= 0.8; NOP ratio_out <= 0.1; broadcast ratio_out >= 0.4 and stable_rank <= 2"
    )
    assert str(lejepa) == "lejepa: event routed_frac >= 0.8; NOP ratio_head <= 0.1; broadcast ratio_head >= 0.4"
    assert (def1.name, def1.event_quantity, def1.event_min) == ("def1_0.25", "min_a", 0.75)
    assert (adaptive.event_min, adaptive.rank) == (0.3, "routed_stable_rank")


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(
    ("share", "value", "expected"), [(0.99, 0.01, NOP), (0.99, 1.0, BROADCAST), (0.99, 0.35, OTHER), (0.02, 1.0, NONE)]
)
def test_labels_of_clear_sinks(name, share, value, expected):
    assert label(RULES[name], view_of(weights_to([share] * N), values(value))) is expected


@pytest.mark.parametrize(
    ("rule", "expected"), [("adaptive", NOP), ("causal", NONE), ("lejepa", NONE), ("def1_0.5", NONE)]
)
def test_an_adaptive_nop_is_an_event_of_its_own_rule_only(rule, expected):
    assert label(RULES[rule], view_of(weights_to([0.99] * 10 + [0.01] * 10), values(0.01))) is expected


def test_adaptive_reads_the_rank_of_the_routed_rows():
    view = view_of(weights_to([1.0] * 4 + [0.0] * 16), values(1.0))
    assert measure(view, T).heads["stable_rank"] > 1.5
    assert label(RULES["adaptive"], view) is BROADCAST


def test_a_sink_with_an_update_of_high_rank_is_other():
    view = view_of(weights_to([0.5] * N), values(0.6))
    assert measure(view, T).heads["stable_rank"] > 1.5
    assert label(RULES["causal"], view) is OTHER
    assert label(RULES["lejepa"], view) is BROADCAST


@pytest.mark.parametrize(("eps", "share"), [(0.5, 0.6), (0.3, 0.75), (0.2, 0.85), (0.1, 0.95)])
def test_def1_depends_on_the_weakest_query(eps, share):
    tighter = [e for e in T.def1_eps if e < eps]
    view = view_of(weights_to([1.0] * (N - 1) + [share]), values(1.0))
    assert label(RULES[f"def1_{eps:g}"], view) is BROADCAST
    assert all(label(RULES[f"def1_{e:g}"], view) is NONE for e in tighter)


@pytest.mark.parametrize("name", RULES)
def test_a_dominant_null_column_is_nop(name):
    v = values(0.0, N + 1, N)
    assert label(RULES[name], view_of(weights_to([0.95] * N, N, N + 1), v, extra=NULL, takes_null=True)) is NOP
    idle = view_of(weights_to([0.05] * N, N, N + 1), v, extra=NULL, takes_null=True)
    assert label(RULES[name], idle) is NONE


def test_a_null_column_is_nop_even_where_every_value_is_zero():
    undefined = quantities(ratio_out=np.nan, sink_type=TokenType.NULL)
    assert apply(RULES["causal"], undefined) == NOP


def test_a_kv_bias_column_is_measured_like_a_token():
    view = view_of(weights_to([0.99] * N, N, N + 1), values(1.0, N + 1, N), extra=(TokenType.KV_BIAS,))
    assert measure(view, T).heads["sink_type"] == TokenType.KV_BIAS
    assert label(RULES["causal"], view) is BROADCAST


@pytest.mark.parametrize("width", [1, D])
@pytest.mark.parametrize("name", ["causal", "lejepa", "def1_0.5", "adaptive"])
@pytest.mark.parametrize("openness", [0.02, 0.98])
def test_a_constant_gate_leaves_a_broadcast(width, name, openness):
    gate = torch.full((1, 1, N, width), openness, dtype=torch.float64)
    view = view_of(weights_to([0.99] * N), values(1.0), gate=gate)
    assert label(RULES[name], view) is BROADCAST
    assert label(effective(RULES[name]), view) is BROADCAST


def test_effective_rules_read_the_gated_quantities():
    rule = effective(RULES["adaptive"])
    assert (rule.name, rule.ratio, rule.rank) == ("effective_adaptive", "gated_ratio_out", "gated_routed_stable_rank")
    assert (rule.event_quantity, rule.event_min) == ("routed_frac", T.adaptive_min)
    assert effective(RULES["lejepa"]).rank is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"routed_frac": np.nan}, UNDEFINED),
        ({"ratio_out": np.nan}, UNDEFINED),
        ({"stable_rank": np.nan}, UNDEFINED),
        ({"stable_rank": np.nan, "ratio_out": 0.1}, NOP),
        ({"stable_rank": np.nan, "ratio_out": 0.3}, OTHER),
        ({"ratio_out": np.nan, "routed_frac": 0.5}, NONE),
        ({"ratio_out": 0.2}, NOP),
        ({"ratio_out": 0.5}, BROADCAST),
        ({"stable_rank": 1.5}, BROADCAST),
        ({"stable_rank": 1.6}, OTHER),
        ({"routed_frac": 0.9}, BROADCAST),
        ({"ratio_out": np.inf}, BROADCAST),
    ],
)
def test_labels_of_undefined_and_borderline_quantities(changes, expected):
    assert apply(RULES["causal"], quantities(**changes)) == expected


@pytest.mark.parametrize("name", RULES)
def test_zero_values_are_undefined_not_other(name):
    assert label(RULES[name], view_of(weights_to([0.99] * N), values(1.0) * 0)) is UNDEFINED


def test_a_single_token_is_undefined():
    view = view_of(torch.ones(1, 1, 1, 1, dtype=torch.float64), values(1.0, 1))
    assert label(RULES["causal"], view) is UNDEFINED


def test_nan_weights_are_undefined_by_every_rule():
    view = view_of(torch.full((1, 1, N, N), torch.nan, dtype=torch.float64), values(1.0))
    assert {label(rule, view) for rule in RULES.values()} == {UNDEFINED}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [9, 18, 27, 90, 180])
def test_values_equal_to_a_threshold_pass_it_in_any_dtype(count, dtype):
    n = count * 10 // 9
    weights = torch.zeros(1, 1, n, n)
    weights[..., 0] = (torch.arange(n) < count).float()
    weights[..., 1] = 1 - weights[..., 0]
    measured = measure(view_of(weights, torch.ones(1, 1, n, D)), T).heads["routed_frac"]
    event = quantities() | {"routed_frac": measured.numpy().astype(dtype)[0]}
    assert apply(RULES["causal"], event) == BROADCAST


def test_labels_keep_the_shape():
    many = {name: np.broadcast_to(x, (2, 3, 4)) for name, x in quantities().items()}
    labels = apply(RULES["causal"], many)
    assert labels.shape == (2, 3, 4)
    assert labels.dtype == np.int8

"""A score and a sink registered outside the package can be trained, tapped and diagnosed without other changes."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from running import fit, heads, run
from tapping import tapped
from torch import Tensor
from variants import make, noise, perturbed, set_fused

from sinkablate.attention.scores import SCORES, Score, register_score
from sinkablate.attention.sinks import SINKS, Sink, register_sink
from sinkablate.config import AttentionConfig, ConfigError, OptimConfig, mechanisms
from sinkablate.tasks.optim import parameter_groups
from sinkablate.vit.tokens import TokenType

# ---- a mechanism in 21 lines


def sharpened(s: Tensor, sharpness: Tensor) -> Tensor:
    """softmax(e^c s), one learned c per head: a normalized score."""
    return (s * sharpness.exp()[:, None, None]).softmax(-1)


def shifted_relu(s: Tensor) -> Tensor:
    """ReLU(s + 1) / N: rows do not sum to one."""
    return (s + 1).relu() / s.shape[-1]


def register() -> None:
    normalized = {"rows_sum_to_one": True, "rows_at_most_one": True, "accepts_sink": True}
    register_score("sharpened", Score(weights=sharpened, parameters=("sharpness",), **normalized))
    register_score("shifted_relu", Score(weights=shifted_relu))
    register_sink("learned_key", Sink(learned=("key", "logit")))
    register_sink("mean_key", Sink(key=lambda k: k.mean(2, keepdim=True)))


# ---- and what the package does with it

PAIRS = [("sharpened", "learned_key"), ("sharpened", "none"), ("shifted_relu", "none"), ("softmax", "learned_key")]
PAIRS += [("softmax", "mean_key"), ("sharpened", "kv_bias")]


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register()
    yield
    for name in ("sharpened", "shifted_relu"):
        del SCORES[name], mechanisms.SCORES[name]
    for name in ("learned_key", "mean_key"):
        del SINKS[name]
        mechanisms.SINKS.remove(name)


@pytest.mark.parametrize(("score", "sink"), PAIRS)
def test_the_tap_rebuilds_blocks_with_a_new_mechanism(score: str, sink: str) -> None:
    model = perturbed(make(attention=AttentionConfig(score=score, sink=sink))).eval()
    views, _, errors = tapped(model, noise(2, 1, 28, 28))
    assert max(errors.values()) < 1e-4
    normalized = score != "shifted_relu"
    for view in views:
        assert view.extra == {"none": (), "kv_bias": (TokenType.KV_BIAS,)}.get(sink, (TokenType.NULL,))
        assert view.rows_sum_to_one == normalized
        assert view.takes_null == (sink in ("learned_key", "mean_key"))
        sums = view.weights().sum(-1)
        assert (sums - 1).abs().max() < 1e-5 if normalized else (sums - 1).abs().max() > 0.1


@pytest.mark.parametrize("sink", ["learned_key", "mean_key"])
def test_a_new_sink_is_fused_like_the_others(sink: str) -> None:
    model = perturbed(make(attention=AttentionConfig(sink=sink))).double().eval()
    twin = copy.deepcopy(model)
    set_fused(twin, False)
    images = noise(2, 1, 28, 28, dtype=torch.float64)
    assert (model(images) - twin(images)).abs().max() < 1e-10


def test_a_new_mechanism_keeps_shared_parameters_paired_and_is_not_decayed() -> None:
    model = make(attention=AttentionConfig(score="sharpened", sink="learned_key"), seed=3)
    names = dict(model.named_parameters())
    assert names["blocks.0.attn.core.sharpness"].eq(0).all()
    biased = dict(make(attention=AttentionConfig(sink="kv_bias"), seed=3).named_parameters())
    plain = dict(make(seed=3).named_parameters())
    assert all(torch.equal(names[name], plain[name]) for name in plain)
    assert torch.equal(names["blocks.1.attn.core.sink_key"], biased["blocks.1.attn.core.sink_key"])
    groups = parameter_groups(model, OptimConfig())
    exempt = {id(p) for group in groups if not group["weight_decay"] for p in group["params"]}
    assert all(id(p) in exempt for name, p in names.items() if ".core." in name)


def test_fit_and_diagnose_accept_a_new_mechanism_by_name(tmp_path: Path) -> None:
    attention = "--model.backbone.attention"
    fit(tmp_path / "run", f"{attention}.score=sharpened", f"{attention}.sink=learned_key").succeeded()
    assert set(heads(tmp_path / "run", 2)["token_type"]) <= {"cls", "patch", "null"}
    words = ("--run", tmp_path / "run", "--limit", "8", "--out", tmp_path / "out")
    run("diagnose", *words).succeeded()
    assert (tmp_path / "out" / "heads.parquet").is_file()


def test_names_are_unique_and_other_combinations_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^score=softmax: a score of this name already exists"):
        register_score("softmax", Score(weights=shifted_relu))
    with pytest.raises(ConfigError, match=r"^sink=zero: a sink of this name already exists"):
        register_sink("zero", Sink())
    with pytest.raises(ConfigError, match=r"^sink=learned_key needs score=softmax or sharpened, got"):
        AttentionConfig(score="shifted_relu", sink="learned_key")


def test_names_in_the_configuration_are_those_with_a_function() -> None:
    assert list(SCORES) == list(mechanisms.SCORES)
    assert list(SINKS) == mechanisms.SINKS
    for name, accepts_sink in mechanisms.SCORES.items():
        assert SCORES[name](AttentionConfig(score=name)).accepts_sink == accepts_sink

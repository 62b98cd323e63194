"""Sink tokens and their random controls, against loops over heads."""

import torch
from variants import make, noise, perturbed

from sinkablate.config import AttentionConfig, ThresholdConfig
from sinkablate.diagnostics.probe import record
from sinkablate.diagnostics.rules import rule_named
from sinkablate.evaluate.sink_tokens import random_tokens, sink_tokens


def test_equals_a_loop_over_heads() -> None:
    thresholds = ThresholdConfig(routed_min=0.3, adaptive_min=0.1)
    model = perturbed(make(depth=3, registers=2, attention=AttentionConfig(sink="zero")))
    for block in model.blocks:
        block.attn.qkv.weight.data *= 3  # so that heads have sinks
    records, _ = record(model, [noise(6, 1, 28, 28)], thresholds)
    sinks = sink_tokens(records, rule_named("adaptive", thresholds))
    expected = torch.zeros(6, records.layout.num_tokens, dtype=torch.bool)
    dominant, routed = records.heads["sink_idx"], records.heads["routed_frac"]
    left_out = 0
    for image in range(6):
        for block in (1, 2):
            for head in range(dominant.shape[2]):
                column = int(dominant[image, block, head])
                if routed[image, block, head] >= 0.1 and column < records.layout.num_tokens:
                    expected[image, column] = True
                left_out += column == records.layout.num_tokens
    assert sinks.equal(expected)
    assert 0 < sinks.sum() < sinks.numel()
    assert left_out > 0  # the null column is dominant somewhere, and is not a token


def test_random_tokens_are_as_many_others() -> None:
    sinks = torch.zeros(50, 20, dtype=torch.bool)
    sinks[:, 3] = True
    sinks[10:, 5:9] = True
    sinks[49] = True  # no other token is left
    state = torch.get_rng_state()
    drawn = random_tokens(sinks, seed=1)
    assert torch.get_rng_state().equal(state)
    assert drawn[:49].sum(1).equal(sinks[:49].sum(1))
    assert not (drawn & sinks).any()
    assert not drawn[49].any()
    assert drawn.equal(random_tokens(sinks, seed=1))
    assert not drawn.equal(random_tokens(sinks, seed=2))
    assert drawn.any(0).sum() >= 15  # not always the same ones


def test_most_tokens_being_sinks_leaves_all_others() -> None:
    sinks = torch.tensor([[True, True, True, False]])
    assert random_tokens(sinks, seed=0).tolist() == [[False, False, False, True]]

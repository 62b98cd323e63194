"""Which heads are edited, and which images are donors."""

from typing import Any

import numpy as np
import pytest

from sinkablate.config import SelectionConfig, ThresholdConfig
from sinkablate.diagnostics.rules import Label, rule_named
from sinkablate.errors import UserError
from sinkablate.intervene.command import parse_shard
from sinkablate.intervene.edits import option_names, parse_edits
from sinkablate.intervene.selection import Plan, choose_heads, head_class, parse_heads

N, L, H = 40, 3, 4
RNG = np.random.default_rng(0)
KINDS = RNG.integers(0, 3, (N, L, H)).astype(np.float32)
HEAD = (1, 2)


def plan(everywhere: bool = True, seed: int = 0, names: Any = None) -> Plan:
    routed = RNG.random((N, L, H)).astype(np.float32) if names is not None else np.where(KINDS == 1, 0.5, 1.0)
    stored: dict[str, Any] = {
        "routed_frac": routed.astype(np.float32),
        "ratio_out": np.ones((N, L, H), np.float32),
        "stable_rank": np.ones((N, L, H), np.float32),
        "sink_type": KINDS,
        "sink_idx": np.full((N, L, H), 3),
        "image_names": np.array([f"image {n}" for n in range(N)]),
        "image_numbers": np.arange(N),
    }
    return Plan.of(stored, rule_named("causal", ThresholdConfig()), [HEAD], everywhere, seed)


def test_donors_are_other_images_with_a_sink_of_the_same_type() -> None:
    example = plan()
    for image in range(N):
        donor_candidates = example.donor_candidates(image, HEAD)
        assert image not in donor_candidates
        for other in range(N):
            alike = (KINDS[other, *HEAD], example.events[other, *HEAD]) == (
                KINDS[image, *HEAD],
                example.events[image, *HEAD],
            )
            assert (other in donor_candidates) == (alike and other != image)
        assert example.donor(image, HEAD) in donor_candidates


def test_draws_depend_only_on_the_image_and_the_seed() -> None:
    donors = [plan().donor(image, HEAD) for image in range(N)]
    assert donors == [plan().donor(image, HEAD) for image in reversed(range(N))][::-1]
    assert donors != [plan(seed=1).donor(image, HEAD) for image in range(N)]
    assert len(set(donors)) > 5


@pytest.mark.parametrize(("sink", "tokens"), [(3, 5), (0, 5), (4, 5), (5, 5)])
def test_another_token_is_never_the_sink(sink: int, tokens: int) -> None:
    example = plan()
    example.quantities["sink_idx"][:] = sink
    drawn = {example.other_token(image, HEAD, tokens, "x") for image in range(N)}
    assert drawn == set(range(tokens)) - {sink}


def test_only_events_are_edited_unless_heads_are_given() -> None:
    for image in range(N):
        assert plan(everywhere=True).edited(image) == [HEAD]
        assert bool(plan(everywhere=False).edited(image)) == (KINDS[image, *HEAD] != 1)


def labels(counts: dict[tuple[int, int], tuple[int, int]]) -> Any:
    """Labels (100, L, H) from the numbers of NOP and broadcast events of each (block, head)."""
    table = np.zeros((100, L, H), np.int8)
    for (block, head), (nop, broadcast) in counts.items():
        table[:nop, block, head] = Label.NOP
        table[nop : nop + broadcast, block, head] = Label.BROADCAST
    return table


def test_heads_with_the_most_events_of_their_class_are_chosen() -> None:
    table = labels(
        {
            (0, 0): (60, 0),
            (0, 1): (70, 0),
            (1, 0): (30, 21),
            (1, 1): (0, 90),
            (1, 2): (0, 80),
            (2, 0): (0, 49),
            (2, 1): (0, 60),
        }
    )
    every = SelectionConfig()
    assert choose_heads(table, every) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1)]
    few = SelectionConfig(top=2, top_first_block=1)
    assert choose_heads(table, few) == [(0, 1), (1, 0), (1, 1), (1, 2)]
    assert head_class(table[:, 1, 0]) == "nop"
    assert head_class(table[:, 2, 3]) == "none"
    assert choose_heads(table, SelectionConfig(min_events=91)) == []


def test_lists_are_parsed_or_refused() -> None:
    assert parse_heads("2:1,0:3,-1:-1", (L, H)) == [(0, 3), (2, 1), (2, 3)]
    assert parse_edits("redirect, zero_value") == ["zero_value", "redirect"]
    assert parse_edits("register_mean, redirect") == ["redirect", "register_mean"]
    assert parse_edits("all") == option_names()
    assert option_names()[-3:] == ["random_head", "register", "pathway"]
    assert parse_shard("2/3") == (2, 3)
    for text in ("3", "1:2:3", "a:b", ""):
        with pytest.raises(UserError, match="BLOCK:HEAD"):
            parse_heads(text, (L, H))
    with pytest.raises(UserError, match="3:0 is outside the model's 3 blocks of 4 heads"):
        parse_heads("3:0", (L, H))
    for text in ("3/3", "1", "-1/3", "1/0"):
        with pytest.raises(UserError, match="shard="):
            parse_shard(text)
    with pytest.raises(UserError, match="edits=zero: no such edit"):
        parse_edits("zero")
    with pytest.raises(UserError, match="rule=causl: no such rule; choose one of causal"):
        rule_named("causl", ThresholdConfig())

"""The summary of a diagnosis: counts per image over blocks >= 1, block 0 apart, and where patches take over."""

import json
from dataclasses import replace
from math import isnan
from typing import Any

import numpy as np
import pytest
from measured import BLOCKS, HEADS, IMAGES, T, records, sinks, verdicts

from sinkablate.diagnostics.findings import findings
from sinkablate.diagnostics.records import Records
from sinkablate.vit.tokens import TokenType

ALL = list(range(BLOCKS))
LABELS = ("nop", "broadcast", "other", "undefined")
KINDS = {TokenType.CLS: 0, TokenType.REGISTER: 1, TokenType.PATCH: 5}
"""A place of each token type in the sequence of a model with two registers."""


@pytest.mark.parametrize("rule", ["causal", "adaptive"])
@pytest.mark.parametrize(("key", "part"), [("counts", slice(1, None)), ("first_block", slice(0, 1))])
def test_counts_per_image(rule: str, key: str, part: slice) -> None:
    found = records()
    counts, names = findings(found, T, ALL)[key][rule], verdicts(found, rule)[:, part]
    for label in LABELS:
        assert counts[label] == pytest.approx((names == label).sum() / IMAGES)
    assert counts["events"] == pytest.approx(sinks(names).sum() / IMAGES)
    assert counts["events"] == pytest.approx(sum(counts[label] for label in LABELS[:3]))
    changing = (names == "broadcast") & (found.heads["rel_update"][:, part] >= 0.01)
    assert counts["broadcast_qualified"] == pytest.approx(changing.sum() / IMAGES)


@pytest.mark.parametrize("gate", [False, True])
def test_token_types_add_up_to_the_label_counts_of_every_rule(gate: bool) -> None:
    found = findings(records(gate), T, ALL)
    assert [text.split(":")[0] for text in found["rules"]] == list(found["counts"]) == list(found["first_block"])
    assert ("effective_causal" in found["counts"]) == gate
    for counts in (*found["counts"].values(), *found["first_block"].values()):
        assert set(counts["by_token_type"]) == set(LABELS[:3])
        for label, kinds in counts["by_token_type"].items():
            assert sum(kinds.values()) == pytest.approx(counts[label])


def test_token_types_are_those_of_the_dominant_column() -> None:
    found = records()
    names, kinds = verdicts(found)[:, 1:], found.heads["sink_type"][:, 1:]
    table = findings(found, T, ALL)["counts"]["causal"]["by_token_type"]
    for label in LABELS[:3]:
        for kind in TokenType:
            assert table[label][kind.label] == pytest.approx(((names == label) & (kinds == kind)).sum() / IMAGES)


def test_without_block_zero_nothing_is_apart() -> None:
    found = records()
    both, later = findings(found, T, [0, 7, 9]), findings(found, T, [4, 7, 9])
    assert both["counts"] == findings(found, T, ALL)["counts"]
    assert later["first_block"] == {}
    expected = both["counts"]["causal"]["events"] + both["first_block"]["causal"]["events"]
    assert later["counts"]["causal"]["events"] == pytest.approx(expected)


def test_block_zero_alone() -> None:
    found = records()
    first = replace(
        found,
        heads={k: v[:, :1] for k, v in found.heads.items()},
        norms=found.norms[:, :1],
        mass={k: v[:, :1] for k, v in found.mass.items()},
        payload_sum=found.payload_sum[:1],
        tokens={k: v[:, :1] for k, v in found.tokens.items()},
        payload_squares=found.payload_squares[:1],
    )
    alone = findings(first, T, [0])
    assert alone["counts"]["causal"]["events"] == 0
    assert alone["first_block"] == findings(found, T, ALL)["first_block"]


def test_group_events() -> None:
    found = records()
    heads = found.heads | {
        "group_routed_frac": np.zeros_like(found.heads["mass"]),
        "topk_routed_frac": np.ones_like(found.heads["mass"]),
    }
    heads["group_routed_frac"][:, 1, :2] = 0.9
    events = findings(replace(found, heads=heads), T, ALL)["group_events"]
    assert events == {"group": 2, "topk": (BLOCKS - 1) * HEADS}


def led(*kinds: TokenType, mass: tuple[float, ...] = (0.2, 0.2, 0.6)) -> Records:
    """Every head of block b sinks on a token of type kinds[b]; each type receives so much mass in every block."""
    found, shape = records(), (IMAGES, BLOCKS, HEADS)
    types = np.broadcast_to(np.float32(kinds)[None, :, None], shape)
    places = np.broadcast_to(np.float32([KINDS[kind] for kind in kinds])[None, :, None], shape)
    heads = found.heads | {
        "routed_frac": np.ones(shape, np.float32),
        "ratio_out": np.ones(shape, np.float32),
        "sink_type": types,
        "sink_idx": places,
    }
    shares = {kind.label: np.full((IMAGES, BLOCKS), share, np.float32) for kind, share in zip(KINDS, mass, strict=True)}
    return replace(found, heads=heads, mass=found.mass | shares)


C, R, P = TokenType.CLS, TokenType.REGISTER, TokenType.PATCH


@pytest.mark.parametrize(
    ("kinds", "blocks", "expected"),
    [((C, R, P), [0, 1, 2], 2), ((P, C, P), [0, 1, 2], 2), ((C, R, C), [0, 1, 2], None), ((C, P, P), [2, 5, 9], 5)],
)
def test_the_first_block_that_patches_lead_by_events(kinds: Any, blocks: list[int], expected: int | None) -> None:
    for rule in ("causal", "adaptive"):
        assert findings(led(*kinds), T, blocks)["handoff"]["first_block_by_events"][rule] == expected


@pytest.mark.parametrize(
    ("mass", "expected"),
    [
        ((0.2, 0.2, 0.6), 3),
        ((0.5, 0.1, 0.4), None),
        ((0.4, 0.2, 0.4), None),
        ((0.3, 0.4, 0.3), None),
        ((0.3, 0.3, 0.4), 3),
    ],
)
def test_the_first_block_that_patches_lead_by_mass(mass: tuple[float, ...], expected: int | None) -> None:
    found = led(C, C, C, mass=mass)
    assert findings(found, T, [3, 4, 5])["handoff"]["first_block_by_mass"] == expected


def test_a_type_that_does_not_occur_does_not_count_in_the_handoff() -> None:
    handoff = findings(records(registers=0, planted=False), T, ALL)["handoff"]
    assert handoff["first_block_by_mass"] == 1  # sixteen patches, one class token, weights nearly even


def test_payload_constancy_is_that_of_heads_that_mostly_broadcast() -> None:
    found, names = records(), verdicts(records())
    counts = np.array([(names == label).sum(axis=0) for label in LABELS])
    payload = np.random.default_rng(0).random((BLOCKS, HEADS))
    known = replace(
        found,
        payload_squares=np.ones((BLOCKS, HEADS)),
        payload_sum=np.sqrt(IMAGES * payload)[..., None] * np.eye(10)[0],
    )
    chosen = (counts.sum(axis=0) > 0) & (counts.argmax(axis=0) == 1)
    chosen[0] = False  # block 0 stands apart
    assert 0 < chosen.sum() < chosen.size
    value = findings(known, T, ALL)["payload_constancy_of_broadcast_heads"]
    assert value == pytest.approx(np.median(payload[chosen]), rel=1e-5)
    nothing = replace(found, heads=found.heads | {"routed_frac": np.zeros_like(found.heads["mass"])})
    assert findings(nothing, T, ALL)["payload_constancy_of_broadcast_heads"] is None


def test_massive_activations_are_those_of_the_worst_block() -> None:
    found = records()
    massive = np.zeros((IMAGES, BLOCKS), np.float32)
    massive[:4, 1], massive[2:, 2] = 3, 1
    summary = findings(replace(found, tokens=found.tokens | {"massive": massive}), T, ALL)
    assert summary["massive_activations_per_image"] == pytest.approx((4 * 3 + 7 * 1) / IMAGES)


@pytest.mark.parametrize("registers", [0, 2])
def test_all_of_it_is_json(registers: int) -> None:
    found = findings(records(registers=registers, planted=False), T, ALL)
    parsed = json.loads(json.dumps(found))
    assert parsed["counts"].keys() == found["counts"].keys()
    assert not any(isinstance(value, float) and isnan(value) for value in found["group_events"].values())


def test_without_registers_their_group_events_are_unknown() -> None:
    assert findings(records(registers=0), T, ALL)["group_events"]["group"] is None


def test_the_headline_says_how_many_heads_sink_and_on_what() -> None:
    found = findings(led(C, R, P), T, ALL)
    assert found["headline"].startswith(
        f"{found['counts']['causal']['events']:.2f} of {(BLOCKS - 1) * HEADS} heads sink"
    )
    assert "by rule causal" in found["headline"]
    quiet = replace(records(), heads=records().heads | {"routed_frac": np.zeros_like(records().heads["mass"])})
    nothing = findings(quiet, T, ALL)["headline"]
    assert nothing == "No head of blocks ≥ 1 sinks on any image, by rule causal or adaptive."
    first_only = led(C, R, P)
    first_only.heads["routed_frac"][:, 1:] = 0
    assert "Block 0 has 4.00 sinks per image (rule causal)" in findings(first_only, T, ALL)["headline"]

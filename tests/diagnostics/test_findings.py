"""The summary of a diagnosis: counts per image over blocks >= 1 and for block 0, and where patches take over."""

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
"""Index of one token of each type in the sequence of a model with two registers."""


@pytest.mark.parametrize("rule", ["causal", "adaptive"])
@pytest.mark.parametrize(("key", "part"), [("counts", slice(1, None)), ("first_block", slice(0, 1))])
def test_counts_per_image(rule: str, key: str, part: slice) -> None:
    measured = records()
    counts, names = findings(measured, T, ALL)[key][rule], verdicts(measured, rule)[:, part]
    for label in LABELS:
        assert counts[label] == pytest.approx((names == label).sum() / IMAGES)
    assert counts["events"] == pytest.approx(sinks(names).sum() / IMAGES)
    assert counts["events"] == pytest.approx(sum(counts[label] for label in LABELS[:3]))
    changing = (names == "broadcast") & (measured.heads["rel_update"][:, part] >= 0.01)
    assert counts["broadcast_qualified"] == pytest.approx(changing.sum() / IMAGES)


@pytest.mark.parametrize("gate", [False, True])
def test_token_types_add_up_to_the_label_counts_of_every_rule(gate: bool) -> None:
    summary = findings(records(gate), T, ALL)
    assert [text.split(":")[0] for text in summary["rules"]] == list(summary["counts"]) == list(summary["first_block"])
    assert ("effective_causal" in summary["counts"]) == gate
    for counts in (*summary["counts"].values(), *summary["first_block"].values()):
        assert set(counts["by_token_type"]) == set(LABELS[:3])
        for label, kinds in counts["by_token_type"].items():
            assert sum(kinds.values()) == pytest.approx(counts[label])


def test_token_types_are_those_of_the_dominant_column() -> None:
    measured = records()
    names, kinds = verdicts(measured)[:, 1:], measured.heads["sink_type"][:, 1:]
    table = findings(measured, T, ALL)["counts"]["causal"]["by_token_type"]
    for label in LABELS[:3]:
        for kind in TokenType:
            assert table[label][kind.label] == pytest.approx(((names == label) & (kinds == kind)).sum() / IMAGES)


def test_without_block_zero_no_block_is_counted_separately() -> None:
    measured = records()
    both, later = findings(measured, T, [0, 7, 9]), findings(measured, T, [4, 7, 9])
    assert both["counts"] == findings(measured, T, ALL)["counts"]
    assert later["first_block"] == {}
    expected = both["counts"]["causal"]["events"] + both["first_block"]["causal"]["events"]
    assert later["counts"]["causal"]["events"] == pytest.approx(expected)


def first_of(measured: Records) -> Records:
    """The same model with its first block only."""
    return replace(
        measured,
        heads={k: v[:, :1] for k, v in measured.heads.items()},
        norms=measured.norms[:, :1],
        mass={k: v[:, :1] for k, v in measured.mass.items()},
        candidates={k: v[:, :1] for k, v in measured.candidates.items()},
        payload_sum=measured.payload_sum[:1],
        tokens={k: v[:, :1] for k, v in measured.tokens.items()},
        payload_squares=measured.payload_squares[:1],
    )


def test_block_zero_counts_if_it_is_the_only_block() -> None:
    measured = records()
    alone = findings(first_of(measured), T, [0])
    assert alone["first_block"] == findings(measured, T, ALL)["first_block"]
    assert alone["counts"] == alone["first_block"]
    assert alone["counts"]["causal"]["events"] > 0
    assert (alone["counted_blocks"], findings(measured, T, ALL)["counted_blocks"]) == ("block 0", "blocks ≥ 1")
    assert f"of {HEADS} heads in block 0 sink per image" in alone["headline"]


def test_group_events() -> None:
    measured = records()
    heads = measured.heads | {
        "group_routed_frac": np.zeros_like(measured.heads["mass"]),
        "topk_routed_frac": np.ones_like(measured.heads["mass"]),
    }
    heads["group_routed_frac"][:, 1, :2] = 0.9
    events = findings(replace(measured, heads=heads), T, ALL)["group_events"]
    assert events == {"group": 2, "topk": (BLOCKS - 1) * HEADS}


def led(*kinds: TokenType, mass: tuple[float, ...] = (0.2, 0.2, 0.6)) -> Records:
    """Every head of block b sinks on a token of type kinds[b]; each type receives the given mass in every block."""
    measured, shape = records(), (IMAGES, BLOCKS, HEADS)
    types = np.broadcast_to(np.float32(kinds)[None, :, None], shape)
    sink_idx = np.broadcast_to(np.float32([KINDS[kind] for kind in kinds])[None, :, None], shape)
    heads = measured.heads | {
        "routed_frac": np.ones(shape, np.float32),
        "ratio_out": np.ones(shape, np.float32),
        "sink_type": types,
        "sink_idx": sink_idx,
    }
    shares = {kind.label: np.full((IMAGES, BLOCKS), share, np.float32) for kind, share in zip(KINDS, mass, strict=True)}
    return replace(measured, heads=heads, mass=measured.mass | shares)


C, R, P = TokenType.CLS, TokenType.REGISTER, TokenType.PATCH
EXTRA = (TokenType.NULL, TokenType.KV_BIAS)


@pytest.mark.parametrize(
    ("kinds", "blocks", "expected"),
    [((C, R, P), [0, 1, 2], 2), ((P, C, P), [0, 1, 2], 2), ((C, R, C), [0, 1, 2], None), ((C, P, P), [2, 5, 9], 5)],
)
def test_the_first_block_where_patches_have_the_most_events(
    kinds: Any, blocks: list[int], expected: int | None
) -> None:
    for rule in ("causal", "adaptive"):
        assert findings(led(*kinds), T, blocks)["handoff"]["first_block_by_events"][rule] == expected


def test_the_first_block_where_patches_dominate_most_pairs() -> None:
    """Mass and events do not decide: CLS receives most of the mass, and no head has an event."""
    measured = led(C, C, P, mass=(0.9, 0.05, 0.05))
    measured.heads["routed_frac"][:] = 0
    handoff = findings(measured, T, ALL)["handoff"]
    assert handoff["first_block_by_dominant_column"] == 2
    assert set(handoff["first_block_by_events"].values()) == {None}


@pytest.mark.parametrize(
    ("mass", "expected"),
    [((0.02, 0.04, 0.94), 3), ((0.2, 0.2, 0.6), None), ((0.05, 0.01, 0.94), 3), ((0.06, 0.06, 0.88), None)],
)
def test_the_first_block_where_patches_have_the_most_mass_per_token(
    mass: tuple[float, ...], expected: int | None
) -> None:
    measured = led(C, C, C, mass=mass)
    assert findings(measured, T, [3, 4, 5])["handoff"]["first_block_by_mass_per_token"] == expected


@pytest.mark.parametrize("extra", EXTRA)
def test_patches_do_not_lead_where_a_column_beyond_the_tokens_does(extra: TokenType) -> None:
    measured = led(P, P, P)
    measured = replace(measured, heads=measured.heads | {"sink_type": measured.heads["sink_type"].copy()})
    measured.heads["sink_type"][:, 1, :3] = extra  # three of the four heads
    handoff = findings(measured, T, ALL)["handoff"]
    assert handoff["first_block_by_dominant_column"] == 2
    assert set(handoff["first_block_by_events"].values()) == {2}


@pytest.mark.parametrize("extra", EXTRA)
def test_patches_do_not_lead_where_a_column_beyond_the_tokens_has_more_mass_per_token(extra: TokenType) -> None:
    measured = led(P, P, P, mass=(0.01, 0.02, 0.7))
    ones, mass = np.ones((IMAGES, BLOCKS), np.float32), np.full((IMAGES, BLOCKS), np.nan, np.float32)
    mass[:, 1] = 0.27
    measured = replace(
        measured,
        mass=measured.mass | {extra.label: mass},
        candidates=measured.candidates | {extra.label: ones * [0, 1, 0]},
    )
    assert findings(measured, T, ALL)["handoff"]["first_block_by_mass_per_token"] == 2


def test_a_token_type_that_does_not_occur_is_ignored_in_the_handoff() -> None:
    handoff = findings(records(registers=0, planted=False), T, ALL)["handoff"]
    assert handoff["first_block_by_dominant_column"] == 1  # sixteen patches, one class token, weights nearly even


def test_payload_constancy_is_over_heads_that_mostly_broadcast() -> None:
    measured, names = records(), verdicts(records())
    counts = np.array([(names == label).sum(axis=0) for label in LABELS])
    payload = np.random.default_rng(0).random((BLOCKS, HEADS))
    known = replace(
        measured,
        payload_squares=np.ones((BLOCKS, HEADS)),
        payload_sum=np.sqrt(IMAGES * payload)[..., None] * np.eye(10)[0],
    )
    chosen = (counts.sum(axis=0) > 0) & (counts.argmax(axis=0) == 1)
    chosen[0] = False  # block 0 is not included
    assert 0 < chosen.sum() < chosen.size
    value = findings(known, T, ALL)["payload_constancy_of_broadcast_heads"]
    assert value == pytest.approx(np.median(payload[chosen]), rel=1e-5)
    assert findings(known, T, ALL)["payload_constancy_chance"] == 1 / IMAGES
    nothing = replace(measured, heads=measured.heads | {"routed_frac": np.zeros_like(measured.heads["mass"])})
    assert findings(nothing, T, ALL)["payload_constancy_of_broadcast_heads"] is None


def test_massive_activations_are_counted_in_the_worst_block() -> None:
    measured = records()
    massive = np.zeros((IMAGES, BLOCKS), np.float32)
    massive[:4, 1], massive[2:, 2] = 3, 1
    summary = findings(replace(measured, tokens=measured.tokens | {"massive": massive}), T, ALL)
    assert summary["massive_activations_per_image"] == pytest.approx((4 * 3 + 7 * 1) / IMAGES)


@pytest.mark.parametrize("registers", [0, 2])
def test_the_summary_is_json(registers: int) -> None:
    summary = findings(records(registers=registers, planted=False), T, ALL)
    parsed = json.loads(json.dumps(summary))
    assert parsed["counts"].keys() == summary["counts"].keys()
    assert not any(isinstance(value, float) and isnan(value) for value in summary["group_events"].values())


def test_without_registers_their_group_events_are_none() -> None:
    assert findings(records(registers=0), T, ALL)["group_events"]["group"] is None


def test_the_headline_says_how_many_heads_sink_and_on_what() -> None:
    summary = findings(led(C, R, P), T, ALL)
    assert summary["headline"].startswith(
        f"{summary['counts']['causal']['events']:.2f} of {(BLOCKS - 1) * HEADS} heads in blocks ≥ 1 sink"
    )
    assert "by rule causal" in summary["headline"]
    quiet = replace(records(), heads=records().heads | {"routed_frac": np.zeros_like(records().heads["mass"])})
    nothing = findings(quiet, T, ALL)["headline"]
    assert nothing == "No head in blocks ≥ 1 sinks on any image, by rule causal or adaptive."
    first_only = led(C, R, P)
    first_only.heads["routed_frac"][:, 1:] = 0
    assert "Block 0 has 4.00 sinks per image (rule causal)" in findings(first_only, T, ALL)["headline"]


def test_the_headline_uses_the_chosen_rule_and_the_names_of_the_tokens() -> None:
    null = findings(led(R, R, R), T, ALL, "adaptive", {"register": "null token"})["headline"]
    assert "by rule adaptive" in null
    assert null.endswith("100% of the sinks are null tokens.")
    assert "by rule lejepa" in findings(led(R, R, R), T, ALL, "lejepa")["headline"]


def test_every_rule_counts_the_payload_constancy_of_its_own_broadcast_heads() -> None:
    measured = records()
    payload = np.random.default_rng(1).random((BLOCKS, HEADS))
    known = replace(
        measured,
        payload_squares=np.ones((BLOCKS, HEADS)),
        payload_sum=np.sqrt(IMAGES * payload)[..., None] * np.eye(10)[0],
    )
    counts = findings(known, T, ALL)["counts"]
    for rule in ("causal", "adaptive"):
        names = verdicts(measured, rule)[:, 1:]
        numbers = np.array([(names == label).sum(axis=0) for label in LABELS])
        mostly = (numbers.sum(axis=0) > 0) & (numbers.argmax(axis=0) == 1)
        assert counts[rule]["broadcast_payload_constancy"] == pytest.approx(np.median(payload[1:][mostly]), rel=1e-5)

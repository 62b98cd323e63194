"""What a set of records says about a model, as plain numbers: the content of `summary.json`."""

from typing import Any

import numpy as np

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.labels import VERDICTS, Labels, is_event, label_all, qualified, rules_for
from sinkablate.diagnostics.records import Records
from sinkablate.diagnostics.tables import HANDOFF_RULES, TOKENS, constancy
from sinkablate.vit.tokens import TokenType


def findings(records: Records, thresholds: ThresholdConfig, blocks: list[int]) -> dict[str, Any]:
    """Counts by label and token type for every rule, group events, the handoff.

    Counts are per image, summed over heads and over blocks >= 1; block 0 stands apart under `first_block`.

    Args:
        records: What was measured.
        thresholds: Of the rules.
        blocks: Numbers of the measured blocks.
    """
    labels = label_all(records, thresholds)
    first = np.array([block == 0 for block in blocks])
    return {
        "rules": [str(rule) for rule in rules_for(records, thresholds)],
        "counts": {rule: _counts(verdicts[:, ~first], records, ~first, thresholds)
                   for rule, verdicts in labels.items()},
        "first_block": {rule: _counts(verdicts[:, first], records, first, thresholds)
                        for rule, verdicts in labels.items()} if first.any() else {},
        "group_events": {name: _per_image(records.heads[f"{name}_routed_frac"][:, ~first] >= thresholds.event_min)
                         for name in ("group", "topk")},
        "payload_constancy_of_broadcast_heads": _constancy_of(labels["causal"], records),
        "handoff": {rule: _handoff(labels[rule], records, blocks) for rule in HANDOFF_RULES},
        "massive_activations_per_image": float(records.tokens["massive"].max(axis=1).mean()),
    }


def _per_image(hit: np.ndarray[Any, np.dtype[np.bool_]]) -> float:
    """Hits (n, L, H) summed over blocks and heads, averaged over images."""
    return float(hit.sum(axis=(1, 2)).mean())


def _counts(labels: Labels, records: Records, where: np.ndarray[Any, np.dtype[np.bool_]],
            thresholds: ThresholdConfig) -> dict[str, Any]:
    """Events and labels per image, and the token type of each label's dominant column."""
    event = is_event(labels)
    kinds = records.heads["sink_type"][:, where]
    some = np.zeros(records.heads["mass"].shape, np.int8)
    some[:, where] = labels
    return {
        "events": _per_image(event),
        **{label.name.lower(): _per_image(labels == label) for label in VERDICTS},
        "broadcast_qualified": _per_image(qualified(some, records, thresholds)),
        "by_token_type": {label.name.lower(): {kind.label: _per_image((labels == label) & (kinds == kind))
                                               for kind in TokenType} for label in VERDICTS[:3]},
    }


def _constancy_of(labels: Labels, records: Records) -> float | None:
    """Median payload constancy of the heads whose most frequent `causal` verdict is broadcast; None without any."""
    counts = np.stack([(labels == label).sum(axis=0) for label in VERDICTS])
    chosen = (counts.sum(axis=0) > 0) & (counts.argmax(axis=0) == 1)
    found = constancy(records)[chosen]
    return float(np.nanmedian(found)) if found.size else None


def _handoff(labels: Labels, records: Records, blocks: list[int]) -> dict[str, Any]:
    """The first block where patches hold the largest share, of events and of mass; None where they never do."""
    present = [kind for kind in TOKENS if not np.isnan(records.mass[kind.label]).all()]
    event = is_event(labels)
    events = {kind: (event & (records.heads["sink_type"] == kind)).sum(axis=(0, 2)) for kind in present}
    mass = {kind: records.mass[kind.label].mean(axis=0) for kind in present}
    return {"first_block_by_events": _first_led(events, blocks), "first_block_by_mass": _first_led(mass, blocks)}


def _first_led(shares: dict[TokenType, Any], blocks: list[int]) -> int | None:
    """The first block in which patches exceed every other type."""
    others = [share for kind, share in shares.items() if kind != TokenType.PATCH]
    patch = shares[TokenType.PATCH]
    led = np.all([patch > other for other in others], axis=0) if others else patch > 0
    return blocks[int(np.argmax(led))] if np.any(led) else None

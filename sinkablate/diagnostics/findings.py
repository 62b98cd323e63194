"""What a set of records says about a model, as plain numbers: the content of `summary.json`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.labels import VERDICTS, Labels, is_event, label_all, qualified_all, rules_for
from sinkablate.diagnostics.records import Records
from sinkablate.diagnostics.tables import HANDOFF_RULES, TOKENS, constancy
from sinkablate.vit.tokens import TokenType

Mask = NDArray[np.bool_]


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
    groups = {"group": records.layout.num_registers > 0, "topk": True}
    return {
        "rules": [str(rule) for rule in rules_for(records, thresholds)],
        **label_counts(records, thresholds, blocks),
        "group_events": {
            name: _per_image(records.heads[f"{name}_routed_frac"][:, ~first] >= thresholds.event_min)
            if exists
            else None
            for name, exists in groups.items()
        },
        "payload_constancy_of_broadcast_heads": _constancy_of(labels["causal"][:, ~first], records, ~first),
        "handoff": _handoff(labels, records, blocks),
        "massive_activations_per_image": float(records.tokens["massive"].max(axis=1).mean()),
    }


def label_counts(records: Records, thresholds: ThresholdConfig, blocks: list[int]) -> dict[str, Any]:
    """Events, labels and the token types of their sinks, for every rule: `counts` of blocks >= 1, `first_block` of 0.

    Args:
        records: What was measured.
        thresholds: Of the rules.
        blocks: Numbers of the measured blocks.

    Returns:
        Per image, summed over heads and blocks; `first_block` is empty where block 0 was not measured.
    """
    labels = label_all(records, thresholds)
    worthy = qualified_all(labels, records, thresholds)
    first = np.array([block == 0 for block in blocks])
    return {
        "counts": {
            rule: _counts(verdicts[:, ~first], worthy[rule][:, ~first], records, ~first)
            for rule, verdicts in labels.items()
        },
        "first_block": {
            rule: _counts(verdicts[:, first], worthy[rule][:, first], records, first)
            for rule, verdicts in labels.items()
        }
        if first.any()
        else {},
    }


def _per_image(hit: Mask) -> float:
    """Hits (n, L, H) summed over blocks and heads, averaged over images."""
    return float(hit.sum(axis=(1, 2)).mean())


def _counts(labels: Labels, worthy: Mask, records: Records, where: Mask) -> dict[str, Any]:
    """Events and labels per image, and the token type of each label's dominant column."""
    kinds = records.heads["sink_type"][:, where]
    return {
        "events": _per_image(is_event(labels)),
        **{label.name.lower(): _per_image(labels == label) for label in VERDICTS},
        "broadcast_qualified": _per_image(worthy),
        "by_token_type": {
            label.name.lower(): {kind.label: _per_image((labels == label) & (kinds == kind)) for kind in TokenType}
            for label in VERDICTS[:3]
        },
    }


def _constancy_of(labels: Labels, records: Records, where: Mask) -> float | None:
    """Median payload constancy of the heads whose most frequent `causal` verdict is broadcast; None without any."""
    counts = np.stack([(labels == label).sum(axis=0) for label in VERDICTS])
    chosen = (counts.sum(axis=0) > 0) & (counts.argmax(axis=0) == 1)
    found = constancy(records)[where][chosen]
    return float(np.nanmedian(found)) if found.size else None


def _handoff(labels: dict[str, Labels], records: Records, blocks: list[int]) -> dict[str, Any]:
    """The first block >= 1 where patches hold the largest share: of events, of mass, of mass per token; None: never."""
    layout = records.layout
    counts = {
        TokenType.CLS: layout.num_cls,
        TokenType.REGISTER: layout.num_registers,
        TokenType.PATCH: layout.num_patches,
    }
    mass = {kind: records.mass[kind.label].mean(axis=0) for kind in TOKENS if counts[kind]}
    kinds = records.heads["sink_type"]
    events = {
        rule: {kind: (is_event(labels[rule]) & (kinds == kind)).sum(axis=(0, 2)) for kind in mass}
        for rule in HANDOFF_RULES
    }
    return {
        "first_block_by_events": {rule: _first_led(shares, blocks) for rule, shares in events.items()},
        "first_block_by_mass": _first_led(mass, blocks),
        "first_block_by_mass_per_token": _first_led({kind: x / counts[kind] for kind, x in mass.items()}, blocks),
    }


def _first_led(shares: dict[TokenType, Any], blocks: list[int]) -> int | None:
    """The first block >= 1 in which patches exceed every other type."""
    patch = shares[TokenType.PATCH]
    led = np.all([patch > share for kind, share in shares.items() if kind != TokenType.PATCH] or [patch > 0], axis=0)
    return next((block for block, patches in zip(blocks, led, strict=True) if patches and block > 0), None)

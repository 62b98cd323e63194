"""The findings of a diagnosis as plain values: the content of `summary.json`."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.by_type import columns_by_type
from sinkablate.diagnostics.counting import counted, counted_name
from sinkablate.diagnostics.labels import Labels, is_event, label_all, qualified_all, rules_for
from sinkablate.diagnostics.records import Records
from sinkablate.diagnostics.rules import DEFAULT_RULE, VERDICTS, Rule, rules, shown_first
from sinkablate.diagnostics.tables import constancy
from sinkablate.vit.tokens import TokenType

Mask = NDArray[np.bool_]
NO_NAMES: Mapping[str, str] = MappingProxyType({})
LABEL_WORDS = {"nop": "NOP", "broadcast": "broadcast", "other": "other"}
TOKEN_WORDS = {
    "cls": "class tokens",
    "register": "registers",
    "patch": "patches",
    "null": "null columns",
    "kv_bias": "k/v-bias columns",
    "bos": "first tokens",
    "sep": "separators",
    "punctuation": "punctuation",
    "word": "words",
}


def findings(
    records: Records,
    thresholds: ThresholdConfig,
    blocks: list[int],
    first_rule: str | None = None,
    names: Mapping[str, str] = NO_NAMES,
) -> dict[str, Any]:
    """Return the headline, counts by label and token type for every rule, group events and the handoff.

    Counts are per image, summed over heads and over the blocks that count (`counted`); block 0 is also counted
    separately under `first_block`.

    Args:
        records: The measurements.
        thresholds: Thresholds of the rules.
        blocks: Indices of the measured blocks.
        first_rule: The rule that the headline prefers; None means the first that is shown in figures.
        names: Token type -> another name of the model for it, such as `null token` for the registers of a NOP toy.
    """
    labels = label_all(records, thresholds)
    counts = label_counts(records, thresholds, blocks)
    where = counted(blocks)
    candidates = shown_first(rules_for(records, thresholds), first_rule)
    heads = int(where.sum()) * records.heads["mass"].shape[2]
    groups = {"group": records.layout.num_registers > 0, "topk": True}
    return {
        "headline": headline(counts, candidates, counted_name(blocks), heads, records.unit, names),
        "counted_blocks": counted_name(blocks),
        "rules": [str(rule) for rule in rules_for(records, thresholds)],
        **counts,
        "group_events": {
            name: _per_image(records.heads[f"{name}_routed_frac"][:, where] >= thresholds.event_min) if exists else None
            for name, exists in groups.items()
        },
        "payload_constancy_of_broadcast_heads": _constancy_of(labels[DEFAULT_RULE][:, where], records, where),
        "payload_constancy_chance": 1 / len(records.order) if len(records.order) > 1 else None,
        "handoff": None
        if records.token_types is not None  # texts have no patches
        else _handoff({rule.name: labels[rule.name] for rule in rules(thresholds) if rule.handoff}, records, blocks),
        "massive_activations_per_image": float(records.tokens["massive"].max(axis=1).mean()),
    }


def headline(
    counts: dict[str, Any],
    candidates: Sequence[Rule],
    where: str,
    num_heads: int,
    unit: str = "image",
    names: Mapping[str, str] = NO_NAMES,
) -> str:
    """Say in a sentence how many heads sink, what the sinks do, and on which tokens; or that no head sinks.

    The rule is the first that has an event.

    Args:
        counts: Result of `label_counts`.
        candidates: The rules, in order of preference.
        where: The blocks that count, as `counted_name` names them.
        num_heads: Number of heads in these blocks.
        unit: What the model was measured on: image or text.
        names: Token type -> another name of the model for it.
    """
    rule = next((rule for rule in candidates if counts["counts"][rule.name]["events"]), None)
    if rule is None:
        none = f"No head in {where} sinks on any {unit}, by rule {' or '.join(rule.name for rule in candidates)}."
        first = {rule.name: counts["first_block"].get(rule.name, {}).get("events") for rule in candidates}
        sinking = next((name for name, events in first.items() if events), None)
        return f"{none} Block 0 has {first[sinking]:.2f} sinks per {unit} (rule {sinking})." if sinking else none
    labels = counts["counts"][rule.name]
    words = [f"{labels[name]:.2f} {text}" for name, text in LABEL_WORDS.items() if labels[name]]
    by_type = {
        name: sum(types[name] for types in labels["by_token_type"].values()) for name in labels["by_token_type"]["nop"]
    }
    most = max(by_type, key=lambda name: by_type[name])
    tokens = f"{names[most]}s" if most in names else TOKEN_WORDS[most]
    return (
        f"{labels['events']:.2f} of {num_heads} heads in {where} sink per {unit}, by rule {rule.name} "
        f"({rule.title}): {', '.join(words)}; "
        f"{by_type[most] / labels['events']:.0%} of the sinks are {tokens}."
    )


def label_counts(records: Records, thresholds: ThresholdConfig, blocks: list[int]) -> dict[str, Any]:
    """Count events, labels and the token types of their sinks for every rule.

    Args:
        records: The measurements.
        thresholds: Thresholds of the rules.
        blocks: Indices of the measured blocks.

    Returns:
        `counts` of the blocks that count (`counted`) and `first_block` of block 0, per image and summed over heads and
        blocks; `first_block` is empty if block 0 was not measured.
    """
    labels = label_all(records, thresholds)
    worthy = qualified_all(labels, records, thresholds)
    parts = {"counts": counted(blocks), "first_block": np.array([block == 0 for block in blocks])}
    return {
        name: {
            rule: _counts(verdicts[:, where], worthy[rule][:, where], records, where)
            for rule, verdicts in labels.items()
        }
        if where.any()
        else {}
        for name, where in parts.items()
    }


def _per_image(hit: Mask) -> float:
    """Sum hits (n, L, H) over blocks and heads, and average over images."""
    return float(hit.sum(axis=(1, 2)).mean())


def _counts(labels: Labels, worthy: Mask, records: Records, where: Mask) -> dict[str, Any]:
    """Return events and labels per image, and the token type of each label's dominant column."""
    kinds = records.heads["sink_type"][:, where]
    return {
        "events": _per_image(is_event(labels)),
        **{label.name.lower(): _per_image(labels == label) for label in VERDICTS},
        "broadcast_qualified": _per_image(worthy),
        "broadcast_payload_constancy": _constancy_of(labels, records, where),
        "by_token_type": {
            label.name.lower(): {kind.label: _per_image((labels == label) & (kinds == kind)) for kind in records.kinds}
            for label in VERDICTS[:3]
        },
    }


def _constancy_of(labels: Labels, records: Records, where: Mask) -> float | None:
    """Return the median payload constancy of heads whose most frequent label is broadcast.

    It is None without such heads, and for a single image, whose payload constancy is undefined.
    """
    counts = np.stack([(labels == label).sum(axis=0) for label in VERDICTS])
    chosen = (counts.sum(axis=0) > 0) & (counts.argmax(axis=0) == 1)
    values = constancy(records)[where][chosen]
    defined = values[~np.isnan(values)]
    return float(np.median(defined)) if defined.size else None


def _handoff(labels: Mapping[str, Labels], records: Records, blocks: list[int]) -> dict[str, Any]:
    """Find the first block that counts where patches lead: in dominant columns, in events, in mass per token."""
    rows = [columns_by_type(records, labels, index) for index in range(len(blocks))]

    def first_led(prefix: str) -> int | None:
        shares = {kind: np.nan_to_num([row[f"{prefix}_{kind.label}"] for row in rows]) for kind in TokenType}
        patch = shares.pop(TokenType.PATCH)
        led = counted(blocks) & np.all([patch > share for share in shares.values()], axis=0)
        return next((block for block, leads in zip(blocks, led, strict=True) if leads), None)

    return {
        "first_block_by_dominant_column": first_led("dominant"),
        "first_block_by_events": {rule: first_led(f"events_{rule}") for rule in labels},
        "first_block_by_mass_per_token": first_led("mass_per_token"),
    }

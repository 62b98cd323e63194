"""Records of a small model on noise, with planted sinks of every label."""

from dataclasses import replace
from functools import cache

import numpy as np
from variants import make, noise, perturbed

from sinkablate.config import AttentionConfig, ThresholdConfig
from sinkablate.diagnostics.probe import probe
from sinkablate.diagnostics.records import Records
from sinkablate.vit.tokens import TokenType

T = ThresholdConfig()
IMAGES, BLOCKS, HEADS = 11, 3, 4


@cache
def records(gate: bool = False, registers: int = 2, planted: bool = True) -> Records:
    """Measurements (11, 3, 4); if `planted`, routing, ratios, ranks and sink indices cover all labels."""
    attention = AttentionConfig(gate="headwise") if gate else AttentionConfig()
    model = perturbed(make(depth=BLOCKS, registers=registers or None, attention=attention))
    measured, _ = probe(model, noise(IMAGES, 1, 28, 28), np.arange(IMAGES), T)
    assert measured.heads["mass"].shape == (IMAGES, BLOCKS, HEADS)
    return replace(measured, heads=measured.heads | _planted(measured)) if planted else measured


def _planted(measured: Records) -> dict[str, np.ndarray]:
    """Values on both sides of every threshold; head 0 is always a sink, head 1 never, head 2 on half of the images."""
    generator, shape = np.random.default_rng(0), measured.heads["mass"].shape
    routed = generator.uniform(0.05, 1.0, shape)
    routed[..., 0], routed[..., 1] = 0.95, 0.0
    routed[..., 2] = np.where(generator.random(shape[:2]) < 0.5, 0.97, 0.5)
    ratio = generator.choice([0.1, 0.35, 0.8], shape)
    ratio[2, :, 0] = np.nan  # an event whose label is undefined
    sink_idx = generator.integers(0, measured.layout.num_tokens, shape)
    drawn = {
        "routed_frac": routed,
        "min_a": routed - 0.04,
        "ratio_out": ratio,
        "ratio_head": ratio + 0.05,
        "stable_rank": generator.choice([1.1, 2.5], shape, p=[0.8, 0.2]),
        "routed_stable_rank": generator.choice([1.1, 2.5], shape, p=[0.8, 0.2]),
        "rel_update": generator.choice([0.001, 0.05], shape),
        "sink_idx": sink_idx,
        "sink_type": measured.layout.types().numpy()[sink_idx],
    }
    if "gated_ratio_out" in measured.heads:
        drawn |= {"gated_ratio_out": ratio * 0.4}
    return {name: values.astype(np.float32) for name, values in drawn.items()}


def verdicts(measured: Records, rule: str = "causal") -> np.ndarray:
    """Names of the labels (n, L, H), computed from the definition of the rule causal or adaptive."""
    rank, fewest = {"causal": ("stable_rank", 0.9), "adaptive": ("routed_stable_rank", 0.1)}[rule]
    names = np.full(measured.heads["mass"].shape, "none", dtype=object)
    for at in np.ndindex(names.shape):
        share, ratio, r = (float(measured.heads[name][at]) for name in ("routed_frac", "ratio_out", rank))
        if share >= fewest - 1e-6:
            null = measured.heads["sink_type"][at] == TokenType.NULL
            names[at] = (
                "nop"
                if null or ratio <= 0.2
                else "undefined"
                if np.isnan(ratio)
                else "broadcast"
                if ratio >= 0.5 and r <= 1.5
                else "other"
            )
    return names


def sinks(names: np.ndarray) -> np.ndarray:
    """Mask of the events that have a label."""
    return np.isin(names, ("nop", "broadcast", "other"))

"""An editor for any model, planned from its own measurements."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from variants import SMALL, make, perturbed

from sinkablate.config import AttentionConfig, BackboneConfig, ThresholdConfig
from sinkablate.diagnostics.probe import probe
from sinkablate.diagnostics.rules import rule_named
from sinkablate.intervene.editor import Editor
from sinkablate.intervene.edits import option_names, selected
from sinkablate.intervene.effects import no_judge
from sinkablate.intervene.selection import Head, Plan
from sinkablate.intervene.values import collect

T = ThresholdConfig()
MECHANISMS = {
    "softmax": AttentionConfig(),
    "zero sink": AttentionConfig(sink="zero"),
    "learned sink": AttentionConfig(sink="learned"),
    "k/v bias": AttentionConfig(sink="kv_bias"),
    "clipped": AttentionConfig(score="clipped_softmax"),
    "relu": AttentionConfig(score="relu"),
    "polynomial": AttentionConfig(score="polynomial"),
    "sigmoid": AttentionConfig(score="sigmoid"),
    **{
        f"{gate} gate of {position}s": AttentionConfig(gate=gate, gate_position=position)
        for gate in ("headwise", "elementwise")
        for position in ("output", "value")
    },
    "gate and sink": AttentionConfig(gate="elementwise", sink="learned"),
}


def own(config: AttentionConfig, **fields: Any) -> Any:
    return perturbed(make(BackboneConfig(**SMALL, attention=config, **fields))).eval()


def plan_of(model: Any, images: Tensor, heads: list[Head], rule: str = "adaptive", seed: int = 0) -> Plan:
    """A plan that edits the given heads on every image."""
    records, _ = probe(model, images, np.arange(len(images)), T)
    return Plan.of_records(records, rule_named(rule, T), heads, everywhere=True, seed=seed)


def lenient(plan: Plan) -> Plan:
    """The same plan with any image as a donor for any other, because sinks of a small random model rarely match."""
    plan.quantities["sink_type"][:] = 0
    plan.__dict__["events"] = np.zeros_like(plan.events)
    return plan


@torch.no_grad()
def editor_of(model: Any, images: Tensor, heads: list[Head], names: Sequence[str] | None = None) -> Editor:
    """An editor for which all other images are donor candidates."""
    plan = lenient(plan_of(model, images, heads))
    return Editor(
        model,
        plan,
        collect(model, plan, [image[None] for image in images]),
        selected(names or option_names()),
        no_judge,
    )

"""The mechanisms: how attention is computed, and what stands beside it."""

from dataclasses import dataclass
from typing import Literal

from sinkablate.config.checks import refuse_idle, require, require_at_most, require_finite

Score = Literal["softmax", "clipped_softmax", "relu", "pointwise", "polynomial", "sigmoid"]
Sink = Literal["none", "zero", "learned", "kv_bias"]
Gate = Literal["none", "headwise", "elementwise"]
GatePosition = Literal["output", "value"]
PointwiseFunction = Literal["relu", "relu2", "gelu", "softplus", "identity", "sigmoid"]


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """How attention is computed: one value on each axis. The defaults are the plain softmax of timm."""

    score: Score = "softmax"
    """How logits s become weights A. N is the number of tokens."""
    sink: Sink = "none"
    """Where a softmax row may put mass that no token should get (softmax only)."""
    gate: Gate = "none"
    """A sigmoid gate read from the normed block input: one per head, or one per channel."""
    gate_position: GatePosition = "output"
    """Gate the attention output before W_O (`output`, G1) or the values before the weighted sum (`value`, G2)."""
    gate_init_std: float = 1e-6
    """Standard deviation of the gate's weights at the start."""
    gate_init_bias: float = 2.0
    """Bias of the gate at the start; 2.0 is an openness of .88."""
    gate_frozen: bool = False
    """Keep the gate at its initial value: the control for what a gate's mere presence does."""
    clip_zeta: float = 1.0
    """clipped_softmax: clip((zeta - gamma) softmax(s) + gamma, 0, 1), gamma = -clip_alpha / N."""
    clip_alpha: float = 0.6
    """clipped_softmax: see `clip_zeta`; a uniform row is dead from zeta N / (N - 1) on."""
    pointwise_function: PointwiseFunction = "relu"
    """pointwise: h in N^-alpha h(s)."""
    pointwise_alpha: float = 1.0
    """pointwise: alpha in N^-alpha h(s), from 0 to 1."""
    polynomial_power: int = 3
    """polynomial: p in sqrt(1/N) s^p; an odd power keeps signs."""
    sigmoid_bias: Literal["log_n", "learned"] = "log_n"
    """sigmoid: b in sigma(s + b); -log N, or one learned number per head that starts there."""

    def __post_init__(self) -> None:
        key = "model.backbone.attention"
        require_finite(self, key)
        require(
            self.sink == "none" or self.score == "softmax",
            f"{key}.sink={self.sink} needs {key}.score=softmax, got {self.score}",
        )
        require(
            self.gate != "none" or not self.gate_frozen, f"{key}.gate_frozen=true needs a gate, got {key}.gate=none"
        )
        require(
            self.gate != "none" or self.gate_position == "output",
            f"{key}.gate_position={self.gate_position} needs a gate, got {key}.gate=none",
        )
        require(self.gate_init_std >= 0, f"{key}.gate_init_std must be at least 0, got {self.gate_init_std}")
        require(self.clip_zeta >= 1, f"{key}.clip_zeta must be at least 1, got {self.clip_zeta}")
        require(self.clip_alpha >= 0, f"{key}.clip_alpha must be at least 0 (gamma <= 0), got {self.clip_alpha}")
        require(0 <= self.pointwise_alpha <= 1, f"{key}.pointwise_alpha must lie in [0, 1], got {self.pointwise_alpha}")
        require(
            self.polynomial_power > 0, f"{key}.polynomial_power must be a positive integer, got {self.polynomial_power}"
        )
        pick = {axis: f"{axis}={getattr(self, axis)}" for axis in ("gate", "score")}
        refuse_idle(
            self,
            key,
            {
                "gate_init_std": (self.gate != "none", pick["gate"]),
                "gate_init_bias": (self.gate != "none", pick["gate"]),
                "clip_zeta": (self.score == "clipped_softmax", pick["score"]),
                "clip_alpha": (self.score == "clipped_softmax", pick["score"]),
                "pointwise_function": (self.score == "pointwise", pick["score"]),
                "pointwise_alpha": (self.score == "pointwise", pick["score"]),
                "polynomial_power": (self.score == "polynomial", pick["score"]),
                "sigmoid_bias": (self.score == "sigmoid", pick["score"]),
            },
        )

    @property
    def is_identity(self) -> bool:
        """True when this is timm's own attention."""
        return self.score == "softmax" and self.sink == "none" and self.gate == "none"


@dataclass(frozen=True, kw_only=True)
class PathwayConfig:
    """A second way from all tokens to all tokens, beside attention in the same blocks."""

    kind: Literal["none", "global"] = "none"
    """global: one pooled vector, added to every token through a gate of its own; a rank-one update."""
    width: int = 64
    """Numbers in the pooled vector g."""
    gate_init_bias: float = 0.0
    """Bias of the gate at the start; 0 is an openness of .5."""

    def __post_init__(self) -> None:
        key = "model.backbone.pathway"
        require_finite(self, key)
        require_at_most(self, key, {"width": 65_536})
        require(self.width > 0, f"{key}.width must be positive, got {self.width}")
        refuse_idle(self, key, dict.fromkeys(("width", "gate_init_bias"), (self.kind != "none", "kind=none")))

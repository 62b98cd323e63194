"""Attention mechanisms, and the global pathway that can be added to them."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from sinkablate.config.checks import Needs, refuse_idle, require, require_at_most, require_finite
from sinkablate.config.mechanisms import SCORES, SINKS
from sinkablate.files.suggestions import did_you_mean_or_list

Gate = Literal["none", "headwise", "elementwise"]
GatePosition = Literal["output", "value"]
GateStart = Literal["scaled", "identity"]
Kernel = Literal["auto", "explicit", "flex"]
PointwiseFunction = Literal["relu", "relu2", "gelu", "softplus", "identity", "sigmoid"]
PathwayGate = Literal["learned", "hierarchical"]


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """How attention is computed: one value on each axis. The defaults are timm's plain softmax attention."""

    score: str = "softmax"
    """How logits s become weights A: softmax, clipped_softmax, relu (ReLU(s)/N), pointwise (N^-alpha h(s)), polynomial
    (s^p/sqrt(N)) or sigmoid (sigma(s + b)), where N is the number of tokens."""
    sink: str = "none"
    """Extra key column that can take part of a softmax row: none, zero (adds 1 to the denominator), learned (adds
    exp(c_h) to it), or kv_bias (a learned key and value per head). Needs score=softmax."""
    gate: Gate = "none"
    """Sigmoid gate computed from the normalized block input: one per head (headwise) or per channel (elementwise)."""
    gate_position: GatePosition = "output"
    """Gate the attention output before W_O (output, G1) or the values before the weighted sum (value, G2)."""
    gate_init_std: float = 1e-6
    """Standard deviation of the gate's weights at initialization, at least 0."""
    gate_init_bias: float = 2.0
    """Bias of the gate at initialization; 2.0 is an openness of sigma(2) = .88."""
    gate_start: GateStart = "scaled"
    """Function at initialization. scaled: the gate multiplies its input by about sigma(gate_init_bias). identity: the
    model computes the same as without the gate, since W_O (G1) or W_V (G2) is divided by this factor and the gate's
    weights are 0."""
    gate_frozen: bool = False
    """Keep the gate at its initial value: a control for the effect of an untrained gate."""
    clip_zeta: float = 1.0
    """For score=clipped_softmax, zeta >= 1 in clip((zeta - gamma) softmax(s) + gamma, 0, 1), gamma = -clip_alpha/N."""
    clip_alpha: float = 0.6
    """For score=clipped_softmax, at least 0; see clip_zeta. At zeta N/(N - 1) or above, a uniform row is all zeros."""
    pointwise_function: PointwiseFunction = "relu"
    """For score=pointwise, the function h in N^-alpha h(s)."""
    pointwise_alpha: float = 1.0
    """For score=pointwise, alpha in N^-alpha h(s), from 0 to 1."""
    polynomial_power: int = 3
    """For score=polynomial, the positive integer p in s^p/sqrt(N); an odd power keeps the sign of s."""
    sigmoid_bias: Literal["log_n", "learned"] = "log_n"
    """For score=sigmoid, b in sigma(s + b): -log N (log_n), or a learned number per head that starts there."""
    kernel: Kernel = "auto"
    """How the mechanism is computed on a GPU, without any change to what it computes. explicit: with all N² weights in
    memory, except for softmax, which is always fused. flex: PyTorch's FlexAttention with memory linear in N, for sink
    zero and learned, score relu, sigmoid, polynomial (power > 1) and pointwise (relu, relu2, softplus, sigmoid). auto:
    flex in compiled models from 512 tokens, otherwise explicit."""

    NEEDS: ClassVar[Needs] = {
        "gate_position": ("gate", None),
        "gate_init_std": ("gate_start", ("scaled",)),
        "gate_init_bias": ("gate", None),
        "gate_start": ("gate", None),
        "gate_frozen": ("gate", None),
        "clip_zeta": ("score", ("clipped_softmax",)),
        "clip_alpha": ("score", ("clipped_softmax",)),
        "pointwise_function": ("score", ("pointwise",)),
        "pointwise_alpha": ("score", ("pointwise",)),
        "polynomial_power": ("score", ("polynomial",)),
        "sigmoid_bias": ("score", ("sigmoid",)),
    }

    def __post_init__(self) -> None:
        require_finite(self)
        for axis, names in {"score": SCORES, "sink": SINKS}.items():
            name = getattr(self, axis)
            require(name in names, f"{axis}={name}: unknown {axis}{did_you_mean_or_list(name, names)}")
        accepting = " or ".join(name for name, accepts_sink in SCORES.items() if accepts_sink)
        require(
            self.sink == "none" or SCORES[self.score],
            f"sink={self.sink} needs score={accepting}, got score={self.score}",
        )
        require(self.gate_init_std >= 0, f"gate_init_std must be at least 0, got {self.gate_init_std}")
        require(
            self.gate_start != "identity" or self.gate_init_bias >= -10,
            "gate_start=identity divides weights by sigma(gate_init_bias), so gate_init_bias must be at least -10, "
            f"got {self.gate_init_bias}",
        )
        require(self.clip_zeta >= 1, f"clip_zeta must be at least 1, got {self.clip_zeta}")
        require(self.clip_alpha >= 0, f"clip_alpha must be at least 0 (gamma <= 0), got {self.clip_alpha}")
        require(0 <= self.pointwise_alpha <= 1, f"pointwise_alpha must lie in [0, 1], got {self.pointwise_alpha}")
        require(self.polynomial_power > 0, f"polynomial_power must be a positive integer, got {self.polynomial_power}")
        refuse_idle(self)

    @property
    def is_identity(self) -> bool:
        """Whether this is timm's own attention, to which `kernel: flex` cannot be applied."""
        plain = self.score == "softmax" and self.sink == "none" and self.gate == "none"
        return plain and self.kernel != "flex"


@dataclass(frozen=True, kw_only=True)
class PathwayConfig:
    """A second path from all tokens to all tokens, in parallel with attention."""

    kind: Literal["none", "global"] = "none"
    """none, or global: one pooled vector is added to every token through a gate per token, a rank-one update."""
    width: int = 64
    """Width of the pooled vector g, at least 1."""
    gating: PathwayGate = "learned"
    """How a token decides what it receives: learned is one sigmoid, sigma(a); hierarchical is sigma(a) softmax(r_0,
    r_bc)_bc, whether the token receives anything times whether it receives from the pathway, .25 at initialization."""
    gate_init_bias: float = 0.0
    """For gating=learned, bias of the pathway's gate at initialization; 0 is an openness of .5."""

    NEEDS: ClassVar[Needs] = {
        "width": ("kind", None),
        "gating": ("kind", None),
        "gate_init_bias": ("gating", ("learned",)),
    }

    def __post_init__(self) -> None:
        require_finite(self)
        require_at_most(self, {"width": 65_536})
        require(self.width > 0, f"width must be positive, got {self.width}")
        refuse_idle(self)

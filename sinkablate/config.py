"""What a user can set: frozen, keyword-only dataclasses that validate themselves. Standard library only.

Each class is one group of keys of the command line and the YAML files. Errors name the full key, because a
dataclass does not know where in the tree it sits: the prefix is the one place where the class is used.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from math import isfinite
from typing import Any, Literal

from sinkablate.errors import UserError

Score = Literal["softmax", "clipped_softmax", "relu", "pointwise", "polynomial", "sigmoid"]
Sink = Literal["none", "zero", "learned", "kv_bias"]
Gate = Literal["none", "headwise", "elementwise"]
GatePosition = Literal["output", "value"]
PointwiseFunction = Literal["relu", "relu2", "gelu", "softplus", "identity", "sigmoid"]


def require(condition: bool, message: str) -> None:
    """Raise `UserError(message)` unless the condition holds."""
    if not condition:
        raise UserError(message)


def refuse_idle(config: Any, key: str, choices: Mapping[str, tuple[bool, str]]) -> None:
    """Refuse a value that a choice leaves without effect: it would be silently ignored.

    Args:
        config: An instance of a config class.
        key: Its full key.
        choices: Field -> (whether it has an effect, what decided that, as `axis=value`).
    """
    for field in fields(config):
        used, choice = choices.get(field.name, (True, ""))
        value = getattr(config, field.name)
        require(used or value == field.default, f"{key}.{field.name}={value} has no effect with {key}.{choice}")


def build(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """An instance of a config class, nested ones included, from plain values; it validates itself.

    A value that is not there keeps its default: what an older version stored knows no newer key.
    """
    return cls(**{field.name: build(field.type, values[field.name])  # type: ignore[arg-type]
                  if is_dataclass(field.type) else values[field.name]
                  for field in fields(cls) if field.name in values})


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
        require(self.sink == "none" or self.score == "softmax",
                f"{key}.sink={self.sink} needs {key}.score=softmax, got {self.score}")
        require(self.gate != "none" or not self.gate_frozen,
                f"{key}.gate_frozen=true needs a gate, got {key}.gate=none")
        require(self.gate != "none" or self.gate_position == "output",
                f"{key}.gate_position={self.gate_position} needs a gate, got {key}.gate=none")
        require(self.gate_init_std >= 0, f"{key}.gate_init_std must be at least 0, got {self.gate_init_std}")
        require(isfinite(self.gate_init_bias), f"{key}.gate_init_bias must be finite, got {self.gate_init_bias}")
        require(self.clip_zeta >= 1, f"{key}.clip_zeta must be at least 1, got {self.clip_zeta}")
        require(self.clip_alpha >= 0, f"{key}.clip_alpha must be at least 0 (gamma <= 0), got {self.clip_alpha}")
        require(0 <= self.pointwise_alpha <= 1,
                f"{key}.pointwise_alpha must lie in [0, 1], got {self.pointwise_alpha}")
        require(self.polynomial_power > 0,
                f"{key}.polynomial_power must be a positive integer, got {self.polynomial_power}")
        pick = {axis: f"{axis}={getattr(self, axis)}" for axis in ("gate", "score")}
        refuse_idle(self, key, {
            "gate_init_std": (self.gate != "none", pick["gate"]),
            "gate_init_bias": (self.gate != "none", pick["gate"]),
            "clip_zeta": (self.score == "clipped_softmax", pick["score"]),
            "clip_alpha": (self.score == "clipped_softmax", pick["score"]),
            "pointwise_function": (self.score == "pointwise", pick["score"]),
            "pointwise_alpha": (self.score == "pointwise", pick["score"]),
            "polynomial_power": (self.score == "polynomial", pick["score"]),
            "sigmoid_bias": (self.score == "sigmoid", pick["score"]),
        })

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
        require(self.width > 0, f"{key}.width must be positive, got {self.width}")
        require(isfinite(self.gate_init_bias), f"{key}.gate_init_bias must be finite, got {self.gate_init_bias}")
        refuse_idle(self, key, dict.fromkeys(("width", "gate_init_bias"), (self.kind != "none", "kind=none")))


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """A timm vision transformer and what is changed in it. `null` always means: as timm has it."""

    name: str = "vit_mini"
    """timm's model name; `vit_mini` is the small default (width 64, depth 4, patch 7)."""
    img_size: int | None = None
    """Side of the square input in pixels; null follows the data."""
    pretrained: bool = False
    """Load timm's weights for this name from the Hugging Face hub."""
    checkpoint: str | None = None
    """Load weights from a local .safetensors, .pt or .pth file instead of the hub."""
    registers: int | None = None
    """Number of register tokens after CLS; null keeps the model's own number (none for most)."""
    register_pos_embed: bool = False
    """Give registers a position embedding (the LeJEPA runs) or none (DINOv2, timm)."""
    register_init_std: float = 1e-6
    """Standard deviation of the registers at the start: 1e-6 in DINOv2 and timm, .02 in the LeJEPA runs."""
    layers: Literal["all"] | tuple[int, ...] = "all"
    """Blocks whose attention is changed; negative numbers count from the last."""
    attention: AttentionConfig = AttentionConfig()
    """The attention mechanism of those blocks."""
    pathway: PathwayConfig = PathwayConfig()
    """A global pathway in those blocks."""
    match_parameters: Gate = "none"
    """Control without a gate: widen the MLPs to the parameter count this gate would bring."""
    embed_dim: int | None = None
    """Width D."""
    depth: int | None = None
    """Number of blocks."""
    num_heads: int | None = None
    """Heads per block."""
    patch_size: int | None = None
    """Side of a patch in pixels."""
    mlp_ratio: float | None = None
    """Hidden width of the MLP over D."""
    qkv_bias: bool | None = None
    """Bias in the q, k, v projections."""
    init_values: float | None = None
    """LayerScale at the start; 0 switches LayerScale off."""
    class_token: bool | None = None
    """Put a CLS token first; false needs `global_pool` avg or map."""
    global_pool: Literal["token", "avg", "map"] | None = None
    """What the classifier reads: CLS, the mean patch, or attention pooling."""
    fixed_sincos: bool = False
    """Replace the learned position embedding by a fixed two-dimensional sine-cosine one."""
    drop_path_rate: float = 0.0
    """Stochastic depth of the last block; earlier blocks get proportionally less."""
    drop_rate: float = 0.0
    """Dropout before the classifier."""
    proj_drop_rate: float = 0.0
    """Dropout after the projections of attention and MLP."""
    attn_drop_rate: float = 0.0
    """Dropout on attention weights."""

    def __post_init__(self) -> None:
        key = "model.backbone"
        require(bool(self.name), f"{key}.name must not be empty")
        for name in ("img_size", "embed_dim", "depth", "num_heads", "patch_size"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{key}.{name} must be positive, got {value}")
        require(self.registers is None or self.registers >= 0,
                f"{key}.registers must be at least 0, got {self.registers}")
        require(bool(self.registers) or not self.register_pos_embed,
                f"{key}.register_pos_embed=true needs {key}.registers > 0, got {self.registers}")
        require(self.register_init_std >= 0,
                f"{key}.register_init_std must be at least 0, got {self.register_init_std}")
        for name in ("drop_path_rate", "drop_rate", "proj_drop_rate", "attn_drop_rate"):
            require(0 <= getattr(self, name) < 1, f"{key}.{name} must lie in [0, 1), got {getattr(self, name)}")
        require(not (self.pretrained and self.checkpoint),
                f"{key}.pretrained and {key}.checkpoint name two sources of weights: keep one")
        require(self.match_parameters == "none" or self.attention.gate == "none",
                f"{key}.match_parameters={self.match_parameters} is the control without a gate, "
                f"got {key}.attention.gate={self.attention.gate}")
        require(self.match_parameters == "none" or not (self.pretrained or self.checkpoint),
                f"{key}.match_parameters widens the MLPs and so cannot start from pretrained weights")
        require(not (self.fixed_sincos and self.register_pos_embed),
                f"{key}.fixed_sincos and {key}.register_pos_embed exclude each other: fixed positions learn nothing")
        require(not (self.fixed_sincos and (self.pretrained or self.checkpoint)),
                f"{key}.fixed_sincos would overwrite the position embedding of pretrained weights")
        require(self.layers == "all" or len(self.layers) > 0, f"{key}.layers must be all or name a block")
        changes = not self.attention.is_identity or self.match_parameters != "none" or self.pathway.kind != "none"
        require(self.layers == "all" or changes,
                f"{key}.layers={list(self.layers)} has no effect: {key}.attention and pathway change nothing")


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """A synthetic task with a known answer, and the mechanism that is to find it."""

    task: Literal["nop", "broadcast"] = "nop"
    """nop: some tokens must be changed and the others left alone. broadcast: one token's content must reach all."""
    tokens: int = 32
    """Tokens of a sequence, the null token of `nop` among them."""
    width: int = 64
    """Width of the tokens and of the one head of each block."""
    attention: AttentionConfig = AttentionConfig()
    """The attention mechanism of every block."""
    pathway: PathwayConfig = PathwayConfig()
    """A global pathway in every block."""
    registers: int = 0
    """Learned tokens more, which no task asks about."""
    p_nop: float = 0.5
    """nop: share of the tokens that must be left alone."""
    supervise: Literal["output", "update"] = "output"
    """nop: compare the outputs with x or 0, or what the head writes with gamma x or x (the published code's second
    form; there the tokens that rest are those whose update is damped)."""
    gamma: float = 0.0
    """nop, supervise=update: what the head must still write on tokens that rest, as a share of x."""
    alpha: float = 1.0
    """broadcast: size of the message in the target."""

    def __post_init__(self) -> None:
        key = "model.toy"
        require(self.tokens >= 2, f"{key}.tokens must be at least 2, got {self.tokens}")
        require(self.width >= 1, f"{key}.width must be positive, got {self.width}")
        require(self.registers >= 0, f"{key}.registers must be at least 0, got {self.registers}")
        require(0 < self.p_nop < 1, f"{key}.p_nop must lie in (0, 1), got {self.p_nop}")
        nop, task = self.task == "nop", f"task={self.task}"
        refuse_idle(self, key, {
            "p_nop": (nop, task), "supervise": (nop, task), "alpha": (not nop, task),
            "gamma": (nop and self.supervise == "update", f"{task}, {key}.supervise={self.supervise}")})

    @property
    def depth(self) -> int:
        """Blocks: one for nop, two for broadcast."""
        return 1 if self.task == "nop" else 2

    @property
    def prefix(self) -> int:
        """Learned tokens before the drawn ones: the null token of nop, then registers."""
        return (self.task == "nop") + self.registers

    @property
    def drawn(self) -> int:
        """Tokens of a sequence that are drawn and have a target."""
        return self.tokens - (self.task == "nop")


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """A timm vision transformer to be measured as it is."""

    name: str | None = None
    """timm's model name, with the tag of its weights (vit_large_patch14_dinov2.lvd142m)."""
    img_size: int | None = None
    """Side of the square input in pixels; null is the size of the weights' own configuration."""
    checkpoint: str | None = None
    """Load weights from a local .safetensors, .pt or .pth file instead of the hub."""
    pretrained: bool = True
    """Load timm's weights for this name from the hub; false without a checkpoint measures a random network."""

    def __post_init__(self) -> None:
        require(self.img_size is None or self.img_size > 0,
                f"backbone.img_size must be positive, got {self.img_size}")
        require(self.name is not None or self.checkpoint is None, "backbone.checkpoint needs backbone.name")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimiser and learning-rate schedule, with timm's names."""

    opt: str = "adamw"
    """timm's optimiser name (adamw, lamb, sgd, …); adamw and sgd run fused where precision is not mixed."""
    lr: float = 3e-3
    """Peak learning rate."""
    weight_decay: float = 0.05
    """Decay of matrices; norms, biases, LayerScale, registers, positions and sink parameters get none."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's and LAMB's moment decays."""
    layer_decay: float | None = None
    """Factor on the learning rate per block from the last to the first; null is none."""
    warmup_steps: int | None = None
    """Optimiser steps of linear warm-up; null is 8 % of the training."""
    min_lr: float = 0.0
    """Learning rate at the end of the cosine."""

    def __post_init__(self) -> None:
        key = "model.optim"
        require(self.lr > 0, f"{key}.lr must be positive, got {self.lr}")
        require(self.weight_decay >= 0, f"{key}.weight_decay must be at least 0, got {self.weight_decay}")
        require(all(0 <= b < 1 for b in self.betas), f"{key}.betas must lie in [0, 1), got {list(self.betas)}")
        require(self.layer_decay is None or 0 < self.layer_decay <= 1,
                f"{key}.layer_decay must lie in (0, 1], got {self.layer_decay}")
        require(self.warmup_steps is None or self.warmup_steps >= 0,
                f"{key}.warmup_steps must be at least 0, got {self.warmup_steps}")
        require(0 <= self.min_lr <= self.lr, f"{key}.min_lr must lie in [0, lr], got {self.min_lr}")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Classification loss and label mixing, with timm's names."""

    bce_loss: bool = False
    """Binary cross-entropy over classes instead of softmax cross-entropy."""
    smoothing: float = 0.0
    """Label smoothing."""
    mixup: float = 0.0
    """Alpha of mixup; 0 is off."""
    cutmix: float = 0.0
    """Alpha of cutmix; 0 is off."""
    mixup_prob: float = 1.0
    """Share of batches that are mixed when either is on."""
    mixup_switch_prob: float = 0.5
    """Share of mixed batches that use cutmix when both are on."""
    mixup_mode: Literal["batch", "pair", "elem"] = "batch"
    """One mixing coefficient per batch, pair or image."""

    def __post_init__(self) -> None:
        key = "model.loss"
        require(0 <= self.smoothing < 1, f"{key}.smoothing must lie in [0, 1), got {self.smoothing}")
        for name in ("mixup", "cutmix"):
            require(getattr(self, name) >= 0, f"{key}.{name} must be at least 0, got {getattr(self, name)}")
        for name in ("mixup_prob", "mixup_switch_prob"):
            require(0 <= getattr(self, name) <= 1, f"{key}.{name} must lie in [0, 1], got {getattr(self, name)}")

    @property
    def mixes(self) -> bool:
        """True when batches are mixed."""
        return self.mixup > 0 or self.cutmix > 0


@dataclass(frozen=True, kw_only=True)
class CommonModeConfig:
    """A penalty on the share of attention's updates that all tokens have in common."""

    weight: float = 0.0
    """Factor of the penalty in the loss; 0 is off. Published: .1 on a ViT-L, with LayerScale starting at 1."""
    skip: int = 1
    """First blocks that are not penalised."""
    before_gate: bool = False
    """Take the update of gated attention before the gate (G1)."""

    def __post_init__(self) -> None:
        key = "model.common_mode"
        require(self.weight >= 0, f"{key}.weight must be at least 0, got {self.weight}")
        require(self.skip >= 0, f"{key}.skip must be at least 0, got {self.skip}")
        refuse_idle(self, key, dict.fromkeys(("skip", "before_gate"), (self.weight > 0, "weight=0")))


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """Exponential moving average of the weights, with timm's names."""

    decay: float = 0.0
    """Decay per optimiser step; 0 is off. Validation then uses the average."""
    warmup: bool = False
    """Ramp the decay up from 0 at the start."""

    def __post_init__(self) -> None:
        require(0 <= self.decay < 1, f"model.ema.decay must lie in [0, 1), got {self.decay}")
        require(self.decay > 0 or not self.warmup, "model.ema.warmup=true has no effect with model.ema.decay=0")


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Where the images are and how they are read."""

    format: Literal["embedded", "shards", "folder"] = "embedded"
    """The Fashion-MNIST subset inside the package, WebDataset tar shards, or one folder per class."""
    train: str = ""
    """shards: a path, brace list, glob, directory, URL or pipe:command; folder: a directory."""
    val: str = ""
    """Validation images, as `train`."""
    test: str = ""
    """Test images, as `train`; empty means the validation images."""
    reader: Literal["indexed", "stream"] = "indexed"
    """shards: read any sample of local tars at random, or stream whole shards (URLs, pipes, object stores)."""
    shuffle_shards: int = 16
    """stream: samples are shuffled within blocks of this many whole shards."""
    on_error: Literal["stop", "skip"] = "stop"
    """What an unreadable shard or image does: end the run, or be skipped, counted and named."""
    num_classes: int = 10
    """Number of classes; a label outside is an error."""

    def __post_init__(self) -> None:
        key = "data.source"
        paths = {"train": self.train, "val": self.val, "test": self.test}
        for name, value in paths.items():
            require(self.format != "embedded" or not value,
                    f"{key}.{name}={value} has no effect with {key}.format=embedded (shards and folder have paths)")
        require(self.reader == "indexed" or self.format == "shards",
                f"{key}.reader=stream needs {key}.format=shards, got {self.format}")
        require(self.num_classes > 0, f"{key}.num_classes must be positive, got {self.num_classes}")
        require(self.shuffle_shards > 0, f"{key}.shuffle_shards must be positive, got {self.shuffle_shards}")


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """What an image is when it reaches the model; the model's size and channels follow it."""

    size: int = 28
    """Side in pixels."""
    in_chans: int = 1
    """1 for grey, 3 for colour; a file with another number of channels is an error."""
    convert: bool = False
    """Convert such files instead of refusing them (ImageNet holds a few grey and CMYK ones)."""
    mean: tuple[float, ...] = (0.286,)
    """Mean per channel after scaling to [0, 1]."""
    std: tuple[float, ...] = (0.353,)
    """Standard deviation per channel after scaling to [0, 1]."""
    interpolation: Literal["bilinear", "bicubic", "random"] = "bicubic"
    """Resampling; `random` picks one per training image."""
    crop_pct: float = 1.0
    """Evaluation: the centre crop's side over the resized image's shorter side."""

    def __post_init__(self) -> None:
        key = "data.image"
        require(self.size > 0, f"{key}.size must be positive, got {self.size}")
        require(self.in_chans in (1, 3), f"{key}.in_chans must be 1 or 3, got {self.in_chans}")
        for name in ("mean", "std"):
            value = getattr(self, name)
            require(len(value) == self.in_chans,
                    f"{key}.{name} needs {self.in_chans} numbers ({key}.in_chans), got {list(value)}")
        require(all(s > 0 for s in self.std), f"{key}.std must be positive, got {list(self.std)}")
        require(0 < self.crop_pct <= 1, f"{key}.crop_pct must lie in (0, 1], got {self.crop_pct}")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Training augmentation, with timm's names."""

    scale: tuple[float, float] = (1.0, 1.0)
    """Area of the random resized crop; (1, 1) is no crop."""
    ratio: tuple[float, float] = (0.75, 1.3333)
    """Aspect ratio of the random resized crop."""
    hflip: float = 0.5
    """Probability of a horizontal flip."""
    vflip: float = 0.0
    """Probability of a vertical flip."""
    color_jitter: float = 0.0
    """Strength of brightness, contrast and saturation jitter."""
    auto_augment: str | None = None
    """timm's policy string, such as rand-m10-n2; null is none."""
    three_augment: bool = False
    """DeiT III's choice of grey, solarise or blur."""
    reprob: float = 0.0
    """Probability of random erasing."""
    remode: Literal["const", "rand", "pixel"] = "pixel"
    """What random erasing writes."""
    aug_repeats: int = 1
    """Times each image appears in a batch's pool, each augmented anew (repeated augmentation)."""

    def __post_init__(self) -> None:
        key = "data.augment"
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            require(0 < low <= high, f"{key}.{name} must be two rising positive numbers, got [{low}, {high}]")
        for name in ("hflip", "vflip", "reprob"):
            require(0 <= getattr(self, name) <= 1, f"{key}.{name} must lie in [0, 1], got {getattr(self, name)}")
        require(self.color_jitter >= 0, f"{key}.color_jitter must be at least 0, got {self.color_jitter}")
        require(not (self.three_augment and self.auto_augment),
                f"{key}.three_augment and {key}.auto_augment exclude each other")
        require(self.aug_repeats >= 1, f"{key}.aug_repeats must be at least 1, got {self.aug_repeats}")


@dataclass(frozen=True, kw_only=True)
class ThresholdConfig:
    """The numbers behind the event rules. No published rule is calibrated: they are printed with every result."""

    routed_min: float = 0.5
    """A query is routed to the dominant column s when A_is reaches this."""
    routed_grid: tuple[float, ...] = (0.3, 0.4, 0.6, 0.7)
    """Other values of `routed_min` under which the share of routed queries is kept, for the sensitivity table."""
    event_min: float = 0.9
    """causal, lejepa: share of routed queries that makes a sink event."""
    adaptive_min: float = 0.1
    """adaptive: share of routed queries that makes a sink event."""
    def1_eps: tuple[float, ...] = (0.5, 0.3, 0.2, 0.1)
    """def1: every query gives s at least 1 - eps; one rule per eps."""
    nop_max: float = 0.2
    """NOP: the sink's value norm over the mean of the others is at most this."""
    broadcast_min: float = 0.5
    """Broadcast: the same ratio is at least this."""
    rank_max: float = 1.5
    """Broadcast: the head's update has at most this stable rank."""
    rel_update_min: float = 0.01
    """A broadcast is qualified when the head's update is at least this times the residual stream."""
    quiet_max: float = 0.2
    """A query is quiet when its update is at most this times the mean value norm."""
    outlier_sd: float = 3.0
    """A token norm is an outlier beyond the mean plus this many standard deviations."""
    outlier_norm: float | None = None
    """A fixed limit on token norms instead, such as 150 (arXiv 2309.16588)."""
    group_top_k: int = 4
    """Group events sum the mass of this many strongest columns (and, apart, of all registers)."""

    def __post_init__(self) -> None:
        key = "diagnostics.thresholds"
        for name in ("routed_min", "event_min", "adaptive_min"):
            require(0 < getattr(self, name) <= 1, f"{key}.{name} must lie in (0, 1], got {getattr(self, name)}")
        require(all(0 < eps < 1 for eps in self.def1_eps),
                f"{key}.def1_eps must lie in (0, 1), got {list(self.def1_eps)}")
        require(0 <= self.nop_max < self.broadcast_min,
                f"{key}.nop_max must lie in [0, broadcast_min), got {self.nop_max}")
        require(all(0 < value <= 1 for value in self.routed_grid),
                f"{key}.routed_grid must lie in (0, 1], got {list(self.routed_grid)}")
        require(self.rel_update_min >= 0, f"{key}.rel_update_min must be at least 0, got {self.rel_update_min}")
        require(self.rank_max >= 1, f"{key}.rank_max must be at least 1, got {self.rank_max}")
        require(self.quiet_max >= 0, f"{key}.quiet_max must be at least 0, got {self.quiet_max}")
        require(self.outlier_norm is None or self.outlier_norm > 0,
                f"{key}.outlier_norm must be positive, got {self.outlier_norm}")
        require(self.group_top_k >= 1, f"{key}.group_top_k must be at least 1, got {self.group_top_k}")


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    """Weights & Biases. The local record (metrics.csv, parquet) is complete without it."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto: online when a key is set, offline otherwise (`wandb sync` uploads later)."""
    project: str = "sinkablate"
    """Project of the run."""
    entity: str | None = None
    """User or team; null is the account's default."""
    group: str | None = None
    """Group of the run, the sweep's name in a sweep."""
    id: str | None = None
    """Run id; null is the run's name, so that a resumed run continues as itself."""
    tags: tuple[str, ...] = ()
    """Tags beside the mechanism's."""

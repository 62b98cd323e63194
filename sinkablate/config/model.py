"""Which model: a timm vision transformer, the transformer of a toy task, or one to be measured as it is."""

from dataclasses import dataclass
from typing import Literal

from sinkablate.config.attention import AttentionConfig, Gate, PathwayConfig
from sinkablate.config.checks import refuse_idle, require, require_at_most, require_finite


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
    grad_checkpointing: bool = False
    """Compute each block again in the backward pass instead of keeping its activations: slower, far less memory."""
    drop_path_rate: float = 0.0
    """Stochastic depth of the last block; earlier blocks get proportionally less."""
    drop_rate: float = 0.0
    """Dropout before the classifier."""
    proj_drop_rate: float = 0.0
    """Dropout after the projections of attention and MLP."""
    attn_drop_rate: float = 0.0
    """Dropout on attention weights."""

    def __post_init__(self) -> None:
        require_finite(self)
        require_at_most(
            self,
            {
                "depth": 1024,
                "embed_dim": 65_536,
                "num_heads": 65_536,
                "mlp_ratio": 256,
                "registers": 4096,
                "img_size": 16_384,
            },
        )
        require(bool(self.name), "name must not be empty")
        for name in ("img_size", "embed_dim", "depth", "num_heads", "patch_size"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{name} must be positive, got {value}")
        require(self.mlp_ratio is None or self.mlp_ratio >= 0, f"mlp_ratio must be at least 0, got {self.mlp_ratio}")
        require(self.registers is None or self.registers >= 0, f"registers must be at least 0, got {self.registers}")
        require(
            bool(self.registers) or not self.register_pos_embed,
            f"register_pos_embed=true needs registers > 0, got {self.registers}",
        )
        require(self.register_init_std >= 0, f"register_init_std must be at least 0, got {self.register_init_std}")
        for name in ("drop_path_rate", "drop_rate", "proj_drop_rate", "attn_drop_rate"):
            require(0 <= getattr(self, name) < 1, f"{name} must lie in [0, 1), got {getattr(self, name)}")
        require(
            not (self.pretrained and self.checkpoint), "pretrained and checkpoint name two sources of weights: keep one"
        )
        require(
            self.class_token is not False or self.global_pool != "token",
            "class_token=false leaves global_pool=token nothing to read: use avg or map",
        )
        require(
            self.match_parameters == "none" or self.attention.gate == "none",
            f"match_parameters={self.match_parameters} is the control without a gate, "
            f"got attention.gate={self.attention.gate}",
        )
        require(
            self.match_parameters == "none" or not (self.pretrained or self.checkpoint),
            "match_parameters widens the MLPs and so cannot start from pretrained weights",
        )
        require(
            not (self.fixed_sincos and self.register_pos_embed),
            "fixed_sincos and register_pos_embed exclude each other: fixed positions learn nothing",
        )
        require(
            not (self.fixed_sincos and (self.pretrained or self.checkpoint)),
            "fixed_sincos would overwrite the position embedding of pretrained weights",
        )
        require(self.layers == "all" or len(self.layers) > 0, "layers must be all or name a block")
        changes = not self.attention.is_identity or self.match_parameters != "none" or self.pathway.kind != "none"
        require(
            self.layers == "all" or changes,
            f"layers={list(self.layers)} has no effect: attention and pathway change nothing",
        )


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
        require_finite(self)
        require_at_most(self, {"tokens": 4096, "width": 16_384, "registers": 4096})
        require(self.tokens >= 2, f"tokens must be at least 2, got {self.tokens}")
        require(self.width >= 1, f"width must be positive, got {self.width}")
        require(self.registers >= 0, f"registers must be at least 0, got {self.registers}")
        require(0 < self.p_nop < 1, f"p_nop must lie in (0, 1), got {self.p_nop}")
        nop, task = self.task == "nop", f"task={self.task}"
        refuse_idle(
            self,
            {
                "p_nop": (nop, task),
                "supervise": (nop, task),
                "alpha": (not nop, task),
                "gamma": (nop and self.supervise == "update", f"{task}, supervise={self.supervise}"),
            },
        )

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
        require(self.img_size is None or self.img_size > 0, f"img_size must be positive, got {self.img_size}")
        require(self.name is not None or self.checkpoint is None, "checkpoint needs name")

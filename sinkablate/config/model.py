"""The model: a timm vision transformer to train, the transformer of a toy task, or a model to measure."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from sinkablate.config.attention import AttentionConfig, Gate, PathwayConfig
from sinkablate.config.checks import Needs, refuse_idle, require, require_at_most, require_finite
from sinkablate.config.image_size import ImageSize, require_size

PosEmbedInterpolation = Literal["timm", "dinov2"]
"""How a position embedding is resampled for images of another size."""


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """A timm vision transformer and the changes made to it. A value of null keeps timm's default."""

    name: str = "vit_mini"
    """timm's model name, hf-hub:USER/NAME or local-dir:FOLDER. The default, vit_mini, is a small ViT for 28-pixel
    images (width 64, depth 4, patch 7)."""
    img_size: ImageSize | None = None
    """Side of the square input in pixels, or [height, width]; null uses the size of the data."""
    pos_embed_interpolation: PosEmbedInterpolation = "timm"
    """How a learned position embedding is resampled if the images differ in size from those of the weights. timm:
    bicubic, antialiased. dinov2: bicubic without antialiasing, with .1 added to rows and columns when the scale is
    computed, as in the official code for DINOv2 without registers (with registers, it equals timm)."""
    pretrained: bool = False
    """Load the weights that belong to this name, from the Hugging Face hub or a folder."""
    checkpoint: str | None = None
    """Load weights from a local .safetensors, .pt, .pth, .bin or .ckpt file instead of the hub."""
    checkpoint_key: str | None = None
    """Which weights of the file, if it contains several: a key such as state_dict or teacher, or the first part of all
    names. By default a moving average (state_dict_ema, model_ema) is taken if there is one."""
    registers: int | None = None
    """Number of register tokens after CLS; null keeps the model's own number, which is 0 for most models."""
    register_pos_embed: bool = False
    """Whether registers have a position embedding, as in the LeJEPA runs; DINOv2 and timm use none."""
    register_init_std: float = 1e-6
    """Standard deviation of the registers at initialization: 1e-6 in DINOv2 and timm, .02 in the LeJEPA runs."""
    layers: Literal["all"] | tuple[int, ...] = "all"
    """Blocks to which attention, pathway and match_parameters apply: all, or a list of block numbers from 0; negative
    numbers count from the last block."""
    attention: AttentionConfig = AttentionConfig()
    """Attention mechanism of these blocks."""
    pathway: PathwayConfig = PathwayConfig()
    """Global pathway of these blocks."""
    match_parameters: Gate = "none"
    """Control without a gate: widen the MLPs by the number of parameters that this gate would add."""
    embed_dim: int | None = None
    """Width D of the tokens."""
    depth: int | None = None
    """Number of blocks."""
    num_heads: int | None = None
    """Number of heads per block."""
    patch_size: int | None = None
    """Side of a patch in pixels."""
    mlp_ratio: float | None = None
    """Hidden width of the MLP divided by D."""
    qkv_bias: bool | None = None
    """Whether the projections to q, k and v have a bias."""
    init_values: float | None = None
    """Initial value of LayerScale; 0 disables LayerScale."""
    class_token: bool | None = None
    """Whether the sequence starts with a CLS token; false needs global_pool=avg or map."""
    global_pool: Literal["token", "avg", "map"] | None = None
    """Input of the classifier: the CLS token (token), the mean of the patches (avg), or attention pooling (map)."""
    fixed_sincos: bool = False
    """Replace the learned position embedding with a fixed two-dimensional sine-cosine embedding."""
    grad_checkpointing: bool = False
    """Recompute each block in the backward pass instead of storing its activations: slower, with much less memory."""
    drop_path_rate: float = 0.0
    """Stochastic depth rate of the last block, in [0, 1); it rises linearly over the blocks from 0."""
    drop_rate: float = 0.0
    """Dropout rate before the classifier, in [0, 1)."""
    proj_drop_rate: float = 0.0
    """Dropout rate after the output projections of attention and MLP, in [0, 1)."""
    attn_drop_rate: float = 0.0
    """Dropout rate of attention weights, in [0, 1)."""

    NEEDS: ClassVar[Needs] = {"register_pos_embed": ("registers", None), "register_init_std": ("registers", None)}

    def __post_init__(self) -> None:
        require_finite(self)
        require_at_most(
            self, {"depth": 1024, "embed_dim": 65_536, "num_heads": 65_536, "mlp_ratio": 256, "registers": 4096}
        )
        require(bool(self.name), "name must not be empty")
        require_size(self.img_size, "img_size")
        for name in ("embed_dim", "depth", "num_heads", "patch_size"):
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
        self._check_combinations()

    def _check_combinations(self) -> None:
        """Refuse values that contradict each other or have no effect together."""
        require(
            not (self.pretrained and self.checkpoint), "pretrained and checkpoint are two sources of weights; keep one"
        )
        require(self.checkpoint_key is None or bool(self.checkpoint), "checkpoint_key needs checkpoint")
        require(
            self.class_token is not False or self.global_pool != "token",
            "class_token=false leaves nothing for global_pool=token to read; use avg or map",
        )
        require(
            self.match_parameters == "none" or self.attention.gate == "none",
            f"match_parameters={self.match_parameters} is the control without a gate, "
            f"got attention.gate={self.attention.gate}",
        )
        require(
            self.attention.kernel != "flex" or not self.attn_drop_rate,
            f"attn_drop_rate={self.attn_drop_rate}: FlexAttention (attention.kernel=flex) cannot drop weights; use "
            "attention.kernel=auto",
        )
        require(
            not (self.fixed_sincos and self.register_pos_embed),
            "fixed_sincos and register_pos_embed are mutually exclusive: fixed positions learn nothing",
        )
        require(self.layers == "all" or len(self.layers) > 0, "layers must be all or list at least one block")
        changes = not self.attention.is_identity or self.match_parameters != "none" or self.pathway.kind != "none"
        require(
            self.layers == "all" or changes,
            f"layers={list(self.layers)} has no effect: attention and pathway change nothing",
        )


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """A synthetic task with a known solution, and the attention mechanism that learns it."""

    task: Literal["nop", "broadcast", "mixed"] = "nop"
    """nop: change some tokens and leave the others as they are. broadcast: copy the content of one token to all. mixed:
    both in one block with two heads and without a null token."""
    tokens: int = 32
    """Length of a sequence, including the null token of nop, excluding registers."""
    width: int = 64
    """Width of the tokens and of every head."""
    attention: AttentionConfig = AttentionConfig()
    """Attention mechanism of every block."""
    pathway: PathwayConfig = PathwayConfig()
    """Global pathway of every block."""
    registers: int = 0
    """Number of additional learned tokens, which have no target."""
    p_nop: float = 0.5
    """For task=nop and mixed, the fraction of tokens that must be left unchanged, in (0, 1)."""
    supervise: Literal["output", "update"] = "output"
    """For task=nop, compare the outputs with x or 0 (output), or the update of the head with gamma x or x (update, the
    second form of the published code, in which the tokens left unchanged are those whose update is damped)."""
    gamma: float = 0.0
    """For task=nop and supervise=update, the update required of unchanged tokens, as a fraction of x."""
    alpha: float = 1.0
    """For task=broadcast and mixed, the scale of the message in the target."""

    NEEDS: ClassVar[Needs] = {
        "p_nop": ("task", ("nop", "mixed")),
        "supervise": ("task", ("nop",)),
        "alpha": ("task", ("broadcast", "mixed")),
        "gamma": ("supervise", ("update",)),
    }

    def __post_init__(self) -> None:
        require_finite(self)
        require_at_most(self, {"tokens": 4096, "width": 16_384, "registers": 4096})
        require(self.tokens >= 2, f"tokens must be at least 2, got {self.tokens}")
        require(self.width >= 1, f"width must be positive, got {self.width}")
        require(self.registers >= 0, f"registers must be at least 0, got {self.registers}")
        require(0 < self.p_nop < 1, f"p_nop must lie in (0, 1), got {self.p_nop}")
        refuse_idle(self)

    @property
    def depth(self) -> int:
        """Number of blocks: 2 for broadcast, 1 for the other tasks."""
        return 2 if self.task == "broadcast" else 1

    @property
    def heads(self) -> int:
        """Number of heads per block: 2 for mixed, 1 for the other tasks."""
        return 2 if self.task == "mixed" else 1

    @property
    def prefix(self) -> int:
        """Number of learned tokens at the start of the sequence: the null token of nop, then registers."""
        return (self.task == "nop") + self.registers

    @property
    def drawn(self) -> int:
        """Number of tokens of a sequence that are drawn and have a target."""
        return self.tokens - (self.task == "nop")


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """A timm vision transformer to measure without changes."""

    name: str | None = None
    """timm's model name with the tag of its weights, such as vit_large_patch14_dinov2.lvd142m; hf-hub:USER/NAME; or
    local-dir:FOLDER."""
    img_size: ImageSize | None = None
    """Side of the square input in pixels, or [height, width]; null uses the size in timm's configuration of the
    weights."""
    pos_embed_interpolation: PosEmbedInterpolation = "timm"
    """How a learned position embedding is resampled for another image size: as timm does, or as the official code of
    DINOv2 without registers does (dinov2)."""
    checkpoint: str | None = None
    """Load weights from a local .safetensors, .pt, .pth, .bin or .ckpt file instead of the hub."""
    checkpoint_key: str | None = None
    """Which weights of the file, if it contains several: a key such as state_dict or teacher, or the first part of all
    names. By default a moving average (state_dict_ema, model_ema) is taken if there is one."""
    pretrained: bool = True
    """Load the weights that belong to this name, from the hub or a folder; with false and no checkpoint, a random
    network is measured."""

    def __post_init__(self) -> None:
        require_size(self.img_size, "img_size")
        require(self.name is not None or self.checkpoint is None, "checkpoint needs name")
        require(self.checkpoint_key is None or bool(self.checkpoint), "checkpoint_key needs checkpoint")

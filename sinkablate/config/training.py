"""How a model is trained and where its record goes."""

from dataclasses import dataclass
from typing import Literal

from sinkablate.config.checks import refuse_idle, require, require_finite


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimizer and learning-rate schedule, with timm's names."""

    opt: str = "adamw"
    """timm's optimizer name (adamw, lamb, sgd, …); adamw and sgd run fused where precision is not mixed."""
    lr: float = 3e-3
    """Peak learning rate."""
    weight_decay: float = 0.05
    """Decay of matrices; norms, biases, LayerScale, registers, positions and sink parameters get none."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's and LAMB's moment decays."""
    layer_decay: float | None = None
    """Factor on the learning rate per block from the last to the first; null is none."""
    warmup_steps: int | None = None
    """Optimizer steps of linear warm-up; null is 8 % of the training."""
    min_lr: float = 0.0
    """Learning rate at the end of the cosine."""

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.lr > 0, f"lr must be positive, got {self.lr}")
        require(self.weight_decay >= 0, f"weight_decay must be at least 0, got {self.weight_decay}")
        require(all(0 <= b < 1 for b in self.betas), f"betas must lie in [0, 1), got {list(self.betas)}")
        require(
            self.layer_decay is None or 0 < self.layer_decay <= 1,
            f"layer_decay must lie in (0, 1], got {self.layer_decay}",
        )
        require(
            self.warmup_steps is None or self.warmup_steps >= 0,
            f"warmup_steps must be at least 0, got {self.warmup_steps}",
        )
        require(0 <= self.min_lr <= self.lr, f"min_lr must lie in [0, lr], got {self.min_lr}")


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
        require_finite(self)
        require(0 <= self.smoothing < 1, f"smoothing must lie in [0, 1), got {self.smoothing}")
        for name in ("mixup", "cutmix"):
            require(getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("mixup_prob", "mixup_switch_prob"):
            require(0 <= getattr(self, name) <= 1, f"{name} must lie in [0, 1], got {getattr(self, name)}")

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
    """First blocks that are not penalized."""
    before_gate: bool = False
    """Take the update of gated attention before the gate (G1)."""

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.weight >= 0, f"weight must be at least 0, got {self.weight}")
        require(self.skip >= 0, f"skip must be at least 0, got {self.skip}")
        refuse_idle(self, dict.fromkeys(("skip", "before_gate"), (self.weight > 0, "weight=0")))


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """Exponential moving average of the weights, with timm's names."""

    decay: float = 0.0
    """Decay per optimizer step; 0 is off. Validation then uses the average."""
    warmup: bool = False
    """Ramp the decay up from 0 at the start."""

    def __post_init__(self) -> None:
        require_finite(self)
        require(0 <= self.decay < 1, f"decay must lie in [0, 1), got {self.decay}")
        require(self.decay > 0 or not self.warmup, "warmup=true has no effect with decay=0")


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
    """Run id; null is one of the run directory's own, which `wandb.json` keeps for when the run is resumed."""
    tags: tuple[str, ...] = ()
    """Tags beside the mechanism's."""

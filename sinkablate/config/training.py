"""Optimizer, losses, weight averaging and Weights & Biases."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from sinkablate.config.checks import Needs, refuse_idle, require, require_finite


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimizer and learning-rate schedule, with timm's names."""

    opt: str = "adamw"
    """timm's optimizer name, such as adamw, lamb or sgd. adam, adamw and sgd are fused."""
    lr: float = 3e-3
    """Peak learning rate, greater than 0."""
    weight_decay: float = 0.05
    """Weight decay of the parameters that decay names."""
    decay: Literal["matrices", "all"] = "matrices"
    """matrices: weight decay is not applied to norms, biases, LayerScale, positions, CLS, registers and sinks.
    all: it is applied to every parameter of the backbone and of LeJEPA's projector, as in arXiv 2606.08105."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the moments of Adam-like optimizers, in [0, 1)."""
    layer_decay: float | None = None
    """Factor on the learning rate of each block relative to the next one, in (0, 1]; null disables it."""
    warmup_steps: int | None = None
    """Number of optimizer steps of linear warm-up; null uses 8 % of all steps."""
    min_lr: float = 0.0
    """Learning rate at the end of the cosine schedule, at most lr."""

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
    """Label smoothing, in [0, 1)."""
    mixup: float = 0.0
    """Alpha of mixup; 0 disables it."""
    cutmix: float = 0.0
    """Alpha of cutmix; 0 disables it."""
    mixup_prob: float = 1.0
    """Probability that a batch is mixed, if mixup or cutmix is enabled."""
    mixup_switch_prob: float = 0.5
    """Probability of cutmix instead of mixup, if both are enabled."""
    mixup_mode: Literal["batch", "pair", "elem"] = "batch"
    """Draw one mixing coefficient per batch, per pair of images (pair) or per image (elem)."""

    def __post_init__(self) -> None:
        require_finite(self)
        require(0 <= self.smoothing < 1, f"smoothing must lie in [0, 1), got {self.smoothing}")
        for name in ("mixup", "cutmix"):
            require(getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("mixup_prob", "mixup_switch_prob"):
            require(0 <= getattr(self, name) <= 1, f"{name} must lie in [0, 1], got {getattr(self, name)}")

    @property
    def mixes(self) -> bool:
        """Whether batches are mixed."""
        return self.mixup > 0 or self.cutmix > 0


@dataclass(frozen=True, kw_only=True)
class CommonModeConfig:
    """Penalty on the part of attention's updates that all tokens have in common."""

    weight: float = 0.0
    """Weight of the penalty in the loss; 0 disables it. The published runs use .1 for a ViT-L and init_values=1."""
    skip: int = 1
    """Number of blocks at the start of the model that are not penalized."""
    before_gate: bool = False
    """Penalize the update of gated attention before the output gate (G1) instead of after it."""

    NEEDS: ClassVar[Needs] = {"skip": ("weight", None), "before_gate": ("weight", None)}

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.weight >= 0, f"weight must be at least 0, got {self.weight}")
        require(self.skip >= 0, f"skip must be at least 0, got {self.skip}")
        refuse_idle(self)


@dataclass(frozen=True, kw_only=True)
class RetrofitConfig:
    """Training of mechanisms that were added to pretrained weights, such as a gate or registers."""

    added_steps: int = 0
    """Number of optimizer steps at the start that train only what was added: gates, registers, sinks and a new
    classifier. Everything is trained after them, with a warm-up and a cosine decay of its own."""
    added_lr: float | None = None
    """Peak learning rate of these steps; null uses model.optim.lr, which is the peak of the steps after them."""
    cls_weight: float = 0.0
    """Self-distillation from the unchanged model: weight of 1 - cos of the two CLS tokens, or of the two means of the
    patches if there is no CLS token; 0 leaves it out."""
    patch_weight: float = 0.0
    """Self-distillation from the unchanged model: weight of the mean squared difference of the final patch tokens,
    divided by their mean square in the unchanged model; 0 leaves it out."""
    labels_train_backbone: bool = False
    """Whether labels train the backbone in addition to self-distillation; otherwise they train the classifier only."""

    NEEDS: ClassVar[Needs] = {"added_lr": ("added_steps", None)}

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.added_steps >= 0, f"added_steps must be at least 0, got {self.added_steps}")
        require(self.added_lr is None or self.added_lr > 0, f"added_lr must be positive, got {self.added_lr}")
        for name in ("cls_weight", "patch_weight"):
            require(getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}")
        require(
            self.distills or not self.labels_train_backbone,
            "labels_train_backbone=true has no effect without self-distillation (cls_weight, patch_weight)",
        )
        refuse_idle(self)

    @property
    def distills(self) -> bool:
        """Whether the model is compared with the unchanged one."""
        return self.cls_weight > 0 or self.patch_weight > 0


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """Exponential moving average of the weights, with timm's names."""

    decay: float = 0.0
    """Decay per optimizer step, in [0, 1); 0 disables the average. If enabled, validation uses the average."""
    warmup: bool = False
    """Increase the decay from 0 during the first steps."""

    def __post_init__(self) -> None:
        require_finite(self)
        require(0 <= self.decay < 1, f"decay must lie in [0, 1), got {self.decay}")
        require(self.decay > 0 or not self.warmup, "warmup=true has no effect with decay=0")


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    """Logging to Weights & Biases. The run directory holds the same numbers (metrics.csv and Parquet files)."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto logs online if an API key is set and offline otherwise; `wandb sync` uploads offline runs."""
    project: str = "sinkablate"
    """Project of the run."""
    entity: str | None = None
    """User or team; null uses the account's default."""
    group: str | None = None
    """Group of the run; in a sweep, the name of the sweep by default."""
    id: str | None = None
    """Id of the run; null generates one and stores it in wandb.json for when the run is resumed."""
    tags: tuple[str, ...] = ()
    """Tags in addition to those of the mechanism."""

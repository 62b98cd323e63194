"""Settings of an evaluation, one class per task; the field of `EvaluationConfig` has the name of the task."""

from dataclasses import dataclass
from typing import Literal

from sinkablate.config.checks import require, require_finite
from sinkablate.config.types import require_types


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """The features of an image that `knn` and `linear` read, and where all features are cached."""

    kind: Literal["auto", "cls", "patch", "both"] = "auto"
    """The CLS token (cls), the mean of the patch tokens (patch), or the two concatenated (both), after the final norm;
    auto is cls if the model has a CLS token, otherwise patch."""
    cache: str | None = None
    """Folder of the cached features; null is OUT/features. Evaluations of the same weights may share a folder."""

    def __post_init__(self) -> None:
        require_types(self)


@dataclass(frozen=True, kw_only=True)
class KnnConfig:
    """Weighted nearest-neighbor classification (DINO, arXiv 2104.14294)."""

    k: tuple[int, ...] = (20, 10, 100, 200)
    """Numbers of neighbors; tables show the first."""
    temperature: float = 0.07
    """A neighbor with cosine similarity s votes with the weight exp(s / temperature)."""
    memory_gib: float = 0.5
    """Limit on the similarities that are held at a time, in GiB; it changes speed only."""

    def __post_init__(self) -> None:
        require_types(self)
        require_finite(self)
        require(len(self.k) > 0 and min(self.k) >= 1, f"k must hold numbers that are at least 1, got {list(self.k)}")
        require(len(set(self.k)) == len(self.k), f"k names a number twice: {list(self.k)}")
        require(self.temperature > 0, f"temperature must be positive, got {self.temperature}")
        require(self.memory_gib > 0, f"memory_gib must be positive, got {self.memory_gib}")


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """One linear layer on standardized frozen features, trained by SGD with momentum and a cosine schedule."""

    lr: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    """Learning rates, of which one is chosen on a tenth of the training images; the validation images play no part."""
    weight_decay: tuple[float, ...] = (0.0, 1e-4, 1e-3)
    """Weight decays, chosen together with the learning rate."""
    epochs: int = 30
    """Passes over the training features."""
    batch_size: int = 1024
    """Images per step."""

    def __post_init__(self) -> None:
        require_types(self)
        require_finite(self)
        for name in ("lr", "weight_decay"):
            require(len(getattr(self, name)) > 0, f"{name} is empty; name at least one number")
        require(min(self.lr) > 0, f"lr must be positive, got {list(self.lr)}")
        require(min(self.weight_decay) >= 0, f"weight_decay must be at least 0, got {list(self.weight_decay)}")
        for name in ("epochs", "batch_size"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """The settings of all tasks."""

    features: FeatureConfig = FeatureConfig()
    knn: KnnConfig = KnnConfig()
    linear: LinearConfig = LinearConfig()

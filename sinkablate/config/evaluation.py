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
    """A neighbor of cosine similarity s votes with the weight exp(s / temperature)."""
    memory_gib: float = 0.5
    """Limit on the similarities that are held at a time, in GiB; it changes speed only."""

    def __post_init__(self) -> None:
        require_types(self)
        require_finite(self)
        require(len(self.k) > 0 and min(self.k) >= 1, f"k must be numbers of at least 1, got {list(self.k)}")
        require(len(set(self.k)) == len(self.k), f"k names a number twice: {list(self.k)}")
        require(self.temperature > 0, f"temperature must be positive, got {self.temperature}")
        require(self.memory_gib > 0, f"memory_gib must be positive, got {self.memory_gib}")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """The settings of all tasks."""

    features: FeatureConfig = FeatureConfig()
    knn: KnnConfig = KnnConfig()

"""Settings of an evaluation, one class per task; the field of `EvaluationConfig` has the name of the task."""

from dataclasses import dataclass
from typing import Literal

from sinkablate.config.checks import require, require_at_most, require_finite
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
        require(len(set(self.k)) == len(self.k), f"k lists a number twice: {list(self.k)}")
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
            require(len(getattr(self, name)) > 0, f"{name} is empty; give at least one number")
        require(min(self.lr) > 0, f"lr must be positive, got {list(self.lr)}")
        require(min(self.weight_decay) >= 0, f"weight_decay must be at least 0, got {list(self.weight_decay)}")
        for name in ("epochs", "batch_size"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class DiscoveryConfig:
    """Unsupervised object discovery from the similarities of patches (LOST, arXiv 2109.14279)."""

    data: str = "embedded"
    """Images with boxes: the embedded scenes for validation, or a folder with the layout of VOC, whose trainval images
    are used."""
    feature: Literal["keys", "queries", "values"] = "keys"
    """What is read from the patches in the last block."""
    remove_bias: bool = False
    """Compute the feature without the bias of its linear map, which all patches have in common."""
    expansion: int = 100
    """Number of patches of lowest degree that can join the seed. If an image has no more patches, as the embedded
    scenes with 8 x 8, all patches that are similar to the seed join it, whatever their degree."""
    size: int | None = None
    """Side in pixels to which images are resized; null is 56 for the embedded scenes and otherwise 512, rounded up to
    whole patches."""

    def __post_init__(self) -> None:
        require_types(self)
        require(self.data != "", "data is empty; name a folder, or leave it out for the embedded scenes")
        require(self.expansion >= 1, f"expansion must be at least 1, got {self.expansion}")
        require(self.size is None or self.size > 0, f"size must be positive, got {self.size}")


@dataclass(frozen=True, kw_only=True)
class SinksConfig:
    """Sinks and outlier tokens, as `diagnose` measures them."""

    images: str | None = None
    """Images to measure on, as for diagnose: a folder, a list, shards, or `builtin`. By default, the labeled validation
    images."""
    limit: int = 200
    """Largest number of images, evenly spaced in their set."""

    def __post_init__(self) -> None:
        require_types(self)
        require(self.images is None or self.images != "", "images is empty; leave it out for the labeled images")
        require(self.limit >= 1, f"limit must be at least 1, got {self.limit}")


@dataclass(frozen=True, kw_only=True)
class QuantizationConfig:
    """Simulated integer quantization of linear layers, and how much of its damage sinks cause."""

    bits: tuple[int, ...] = (8, 6, 4)
    """Numbers of bits, for weights and activations alike; tables show the first."""
    calibration: int = 32
    """Number of images from which calibrated ranges of activations are taken."""
    percentile: float = 99.99
    """For calibrated ranges without tails, the share of an image's activations below the upper end, in percent; and of
    those above the lower end. Calibrated ranges from the smallest to the largest value are always measured, too."""
    limit: int = 500
    """Largest number of images on which damage is measured."""
    layer_limit: int = 64
    """Largest number of these images on which damage by layer is measured."""
    images: str | None = None
    """Images without labels to measure on, as for diagnose: a folder, a list, shards, or `builtin`. Some of them are
    used for calibration. By default, the labeled images; for a model without a classifier, those of segmentation."""
    rule: str | None = None
    """The rule by which a head has a sink, such as adaptive; null is the rule that diagnose shows first."""
    floor: float = 0.5
    """A model is destroyed if a smaller share of its accuracy above chance, or of its mIoU, in full precision is left,
    or, where neither is known, if the cosine of its patch tokens is below this."""

    def __post_init__(self) -> None:
        require_types(self)
        require_finite(self)
        require(len(self.bits) > 0, "bits is empty; give at least one number")
        require(all(2 <= bits <= 8 for bits in self.bits), f"bits must lie between 2 and 8, got {list(self.bits)}")
        require(len(set(self.bits)) == len(self.bits), f"bits lists a number twice: {list(self.bits)}")
        for name in ("calibration", "limit", "layer_limit"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        require(50 < self.percentile < 100, f"percentile must lie between 50 and 100, got {self.percentile}")
        require(self.images is None or self.images != "", "images is empty; leave it out for the labeled images")
        require(0 <= self.floor <= 1, f"floor must lie in [0, 1], got {self.floor}")


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """A linear layer on every frozen patch token, trained to classify pixels."""

    data: str = "embedded"
    """embedded: scenes of 56 pixels that come with the package; or a folder, whose layout is recognized: ADE20K, PASCAL
    VOC, or images/{train,val} with masks/{train,val}."""
    protocol: Literal["cached", "augmented"] = "cached"
    """cached: features are extracted once, without augmentation; augmented: random crops and flips in every epoch. The
    numbers of the two cannot be compared."""
    size: int | None = None
    """Side in pixels to which images and masks are resized; null is 512, or 56 for the embedded scenes, rounded up to
    whole patches."""
    epochs: int | None = None
    """Passes over the training images; null is the number of the protocol for the data set."""
    num_classes: int | None = None
    """Number of classes; needed for a pair of folders only, whose masks hold the numbers of classes from 0."""
    background: bool = False
    """Read the background of PASCAL VOC and of the embedded scenes as a class instead of ignoring it."""

    def __post_init__(self) -> None:
        require_types(self)
        require(bool(self.data), "data is empty; name a folder, or leave it out for the embedded scenes")
        require_at_most(self, {"size": 16_384, "epochs": 1_000_000})
        for name in ("size", "epochs"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be at least 1, got {value}")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """The settings of all tasks."""

    features: FeatureConfig = FeatureConfig()
    knn: KnnConfig = KnnConfig()
    linear: LinearConfig = LinearConfig()
    discovery: DiscoveryConfig = DiscoveryConfig()
    quantization: QuantizationConfig = QuantizationConfig()
    segmentation: SegmentationConfig = SegmentationConfig()
    sinks: SinksConfig = SinksConfig()

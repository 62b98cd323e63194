"""Where images are, what they become, and how they are augmented."""

from dataclasses import dataclass
from typing import Literal

from sinkablate.config.checks import require, require_at_most, require_finite

EMBEDDED_CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Where the images are and how they are read."""

    format: Literal["embedded", "shards", "folder"] = "embedded"
    """The Fashion-MNIST subset inside the package, WebDataset tar shards, or one folder per class."""
    train: str = ""
    """shards: a path, brace list, glob, directory, URL or pipe:command, which is executed; folder: a directory."""
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
    num_classes: int | None = None
    """Number of classes; null takes the number of class folders, or of classes in manifest.json."""

    def __post_init__(self) -> None:
        paths = {"train": self.train, "val": self.val, "test": self.test}
        for name, value in paths.items():
            require(
                self.format != "embedded" or not value,
                f"{name}={value} has no effect with format=embedded (shards and folder have paths)",
            )
        require(
            self.reader == "indexed" or self.format == "shards", f"reader=stream needs format=shards, got {self.format}"
        )
        require_at_most(self, {"num_classes": 1_000_000})
        require(
            self.num_classes is None or self.num_classes > 0, f"num_classes must be at least 1, got {self.num_classes}"
        )
        require(
            self.format != "embedded" or self.num_classes in (None, EMBEDDED_CLASSES),
            f"num_classes={self.num_classes}: the embedded images have {EMBEDDED_CLASSES} classes; leave the key out",
        )
        require(self.shuffle_shards > 0, f"shuffle_shards must be positive, got {self.shuffle_shards}")


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """What an image is when it reaches the model; the model's size and channels follow it."""

    size: int = 28
    """Side in pixels."""
    in_chans: int = 1
    """1 for gray, 3 for color; a file with another number of channels is an error."""
    convert: bool = False
    """Convert such files instead of refusing them (ImageNet holds a few gray and CMYK ones)."""
    mean: tuple[float, ...] = (0.286,)
    """Mean per channel after scaling to [0, 1]."""
    std: tuple[float, ...] = (0.353,)
    """Standard deviation per channel after scaling to [0, 1]."""
    interpolation: Literal["bilinear", "bicubic", "random"] = "bicubic"
    """Resampling; `random` picks one per training image."""
    crop_pct: float = 1.0
    """Evaluation: the center crop's side over the resized image's shorter side."""

    def __post_init__(self) -> None:
        require_finite(self)
        require_at_most(self, {"size": 16_384})
        require(self.size > 0, f"size must be positive, got {self.size}")
        require(self.in_chans in (1, 3), f"in_chans must be 1 or 3, got {self.in_chans}")
        for name in ("mean", "std"):
            value = getattr(self, name)
            require(len(value) == self.in_chans, f"{name} needs {self.in_chans} numbers (in_chans), got {list(value)}")
        require(all(s > 0 for s in self.std), f"std must be positive, got {list(self.std)}")
        require(0 < self.crop_pct <= 1, f"crop_pct must lie in (0, 1], got {self.crop_pct}")


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
    """DeiT III's choice of gray, solarise or blur."""
    reprob: float = 0.0
    """Probability of random erasing."""
    remode: Literal["const", "rand", "pixel"] = "pixel"
    """What random erasing writes."""
    aug_repeats: int = 1
    """Times each image appears in a batch's pool, each augmented anew (repeated augmentation)."""

    def __post_init__(self) -> None:
        require_finite(self)
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            require(0 < low <= high, f"{name} must be two rising positive numbers, got [{low}, {high}]")
        require(self.scale[1] <= 1, f"scale is a share of the area, at most 1, got {list(self.scale)}")
        require(
            not (self.auto_augment or "").startswith("v0"),
            f"auto_augment={self.auto_augment}: timm's v0 posterizes to 0 bits, which Pillow refuses; use "
            "original or rand-*",
        )
        for name in ("hflip", "vflip", "reprob"):
            require(0 <= getattr(self, name) <= 1, f"{name} must lie in [0, 1], got {getattr(self, name)}")
        require(self.color_jitter >= 0, f"color_jitter must be at least 0, got {self.color_jitter}")
        require(not (self.three_augment and self.auto_augment), "three_augment and auto_augment exclude each other")
        require_at_most(self, {"aug_repeats": 1024})
        require(self.aug_repeats >= 1, f"aug_repeats must be at least 1, got {self.aug_repeats}")

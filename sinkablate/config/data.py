"""Image sources, preprocessing and augmentation."""

from dataclasses import dataclass
from typing import Literal

from sinkablate.config.checks import require, require_at_most, require_finite
from sinkablate.config.image_size import ImageSize, require_size

EMBEDDED_CLASSES = 10
BUILT_IN = ("embedded", "scenes")
"""Formats of the images that come with the package and therefore have no paths."""


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Where images are stored and how they are read."""

    format: Literal["embedded", "scenes", "shards", "folder"] = "embedded"
    """embedded: the Fashion-MNIST subset that comes with the package; scenes: 56-pixel scenes of several of its
    garments, labeled with the largest; shards: WebDataset tar shards; folder: one folder per class."""
    train: str = ""
    """Training images. For format=shards, a path, brace list, glob, directory, URL or pipe:COMMAND, which is executed.
    For format=folder, a directory."""
    val: str = ""
    """Validation images, in the form of train."""
    test: str = ""
    """Test images, in the form of train; if empty, the validation images."""
    reader: Literal["indexed", "stream"] = "indexed"
    """For format=shards, read samples of local files in random order (indexed), or whole shards in sequence (stream),
    which also works for URLs, pipes and object stores."""
    shuffle_shards: int = 16
    """For reader=stream, the number of shards whose samples are shuffled together."""
    on_error: Literal["stop", "skip"] = "stop"
    """For a shard or image that cannot be read: end the run (stop), or leave it out and report it (skip)."""
    num_classes: int | None = None
    """Number of classes; null uses the number of class folders, or of classes in manifest.json."""

    def __post_init__(self) -> None:
        paths = {"train": self.train, "val": self.val, "test": self.test}
        for name, value in paths.items():
            require(
                self.format not in BUILT_IN or not value,
                f"{name}={value} has no effect with format={self.format} (only shards and folder have paths)",
            )
        require(
            self.reader == "indexed" or self.format == "shards", f"reader=stream needs format=shards, got {self.format}"
        )
        require_at_most(self, {"num_classes": 1_000_000})
        require(
            self.num_classes is None or self.num_classes > 0, f"num_classes must be at least 1, got {self.num_classes}"
        )
        require(
            self.format not in BUILT_IN or self.num_classes in (None, EMBEDDED_CLASSES),
            f"num_classes={self.num_classes}: the images of format={self.format} have {EMBEDDED_CLASSES} classes; "
            "leave the key out",
        )
        require(self.shuffle_shards > 0, f"shuffle_shards must be positive, got {self.shuffle_shards}")


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """Size, channels and normalization of images; the model's input size and channels follow these."""

    size: ImageSize = 28
    """Side of the square image in pixels, or [height, width]."""
    in_chans: int = 1
    """Number of channels: 1 for gray, 3 for color. A file with a different number is an error; see convert."""
    convert: bool = False
    """Convert files with a different number of channels (ImageNet has a few gray and CMYK images)."""
    mean: tuple[float, ...] = (0.286,)
    """Mean of each channel, for pixel values scaled to [0, 1]."""
    std: tuple[float, ...] = (0.353,)
    """Standard deviation of each channel, for pixel values scaled to [0, 1]."""
    interpolation: Literal["bilinear", "bicubic", "random"] = "bicubic"
    """Interpolation of resizing; random picks bilinear or bicubic for each training image."""
    crop_pct: float = 1.0
    """For evaluation, the side of the center crop divided by the shorter side of the resized image, in (0, 1]."""

    def __post_init__(self) -> None:
        require_finite(self)
        require_size(self.size, "size")
        require(self.in_chans in (1, 3), f"in_chans must be 1 or 3, got {self.in_chans}")
        for name in ("mean", "std"):
            value = getattr(self, name)
            require(len(value) == self.in_chans, f"{name} needs {self.in_chans} numbers (in_chans), got {list(value)}")
        require(all(s > 0 for s in self.std), f"std must be positive, got {list(self.std)}")
        require(0 < self.crop_pct <= 1, f"crop_pct must lie in (0, 1], got {self.crop_pct}")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation of training images, with timm's names."""

    scale: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest area of the random resized crop, as a fraction of the image; [1, 1] disables cropping."""
    ratio: tuple[float, float] = (0.75, 1.3333)
    """Smallest and largest aspect ratio of the random resized crop."""
    hflip: float = 0.5
    """Probability of a horizontal flip."""
    vflip: float = 0.0
    """Probability of a vertical flip."""
    color_jitter: float = 0.0
    """Strength of brightness, contrast and saturation jitter; 0 disables it."""
    auto_augment: str | None = None
    """timm's policy string, such as rand-m10-n2; null disables it."""
    three_augment: bool = False
    """3-Augment of DeiT III: gray, solarization or blur, one of them for each image."""
    reprob: float = 0.0
    """Probability of random erasing."""
    remode: Literal["const", "rand", "pixel"] = "pixel"
    """Content of erased regions: zeros (const), one random color (rand), or random pixels (pixel)."""
    aug_repeats: int = 1
    """Repeated augmentation: the number of times each image is drawn, each time with another augmentation."""

    def __post_init__(self) -> None:
        require_finite(self)
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            require(0 < low <= high, f"{name} must be two positive numbers, the smaller first, got [{low}, {high}]")
        require(self.scale[1] <= 1, f"scale is a share of the area, at most 1, got {list(self.scale)}")
        require(
            not (self.auto_augment or "").startswith("v0"),
            f"auto_augment={self.auto_augment}: timm's v0 posterizes to 0 bits, which Pillow refuses; use "
            "original or rand-*",
        )
        for name in ("hflip", "vflip", "reprob"):
            require(0 <= getattr(self, name) <= 1, f"{name} must lie in [0, 1], got {getattr(self, name)}")
        require(self.color_jitter >= 0, f"color_jitter must be at least 0, got {self.color_jitter}")
        require(not (self.three_augment and self.auto_augment), "three_augment and auto_augment are mutually exclusive")
        require_at_most(self, {"aug_repeats": 1024})
        require(self.aug_repeats >= 1, f"aug_repeats must be at least 1, got {self.aug_repeats}")

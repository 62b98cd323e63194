"""Self-supervised training by LeJEPA (arXiv 2511.08544): views, projector, regularizer, probe."""

from dataclasses import dataclass

from sinkablate.config.checks import require, require_at_most, require_finite


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """Several random views of each training image. Probabilities are those of applying a step at all."""

    count: int = 1
    """Views of an image; from 2 on they take the place of `data.augment`."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Share of the image's area that a view shows."""
    hflip: float = 0.5
    """Horizontal flip."""
    jitter: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2)
    """Strength of brightness, contrast, saturation and hue jitter."""
    jitter_prob: float = 0.8
    """Color jitter."""
    grey_prob: float = 0.2
    """Conversion to gray."""
    blur_prob: float = 0.5
    """Gaussian blur, sigma .1 to 2."""
    blur_size: int = 7
    """Width of the blur's kernel in pixels."""
    solarise_prob: float = 0.2
    """Solarisation above 128."""

    def __post_init__(self) -> None:
        require_finite(self)
        require_at_most(self, {"count": 1024})
        require(self.count >= 1, f"count must be at least 1, got {self.count}")
        require(0 < self.scale[0] <= self.scale[1] <= 1, f"scale must rise within (0, 1], got {list(self.scale)}")
        for name in ("hflip", "jitter_prob", "grey_prob", "blur_prob", "solarise_prob"):
            require(0 <= getattr(self, name) <= 1, f"{name} must lie in [0, 1], got {getattr(self, name)}")
        require(
            all(strength >= 0 for strength in self.jitter) and self.jitter[3] <= 0.5,
            f"jitter must be four numbers of at least 0, the hue's at most .5, got {list(self.jitter)}",
        )
        require(
            self.blur_size >= 1 and self.blur_size % 2 == 1, f"blur_size must be odd and positive, got {self.blur_size}"
        )


@dataclass(frozen=True, kw_only=True)
class LeJepaConfig:
    """The objective, lambda SIGReg(z) + (1 - lambda) mean((mean_v z - z)^2), and the probe beside it."""

    lamb: float = 0.02
    """lambda, the weight of the regularizer."""
    directions: int = 256
    """Random unit directions of every step."""
    all_ranks: bool = False
    """Take the averages of the regularizer and of the projector's batch norm over all processes, so that any number of
    them computes the same; the published runs take each process's own."""
    hidden: int = 2048
    """Width of the projector's two hidden layers."""
    out: int = 128
    """Width of its output."""
    probe_lr: float = 1e-3
    """Peak learning rate of the online probe."""
    probe_weight_decay: float = 1e-7
    """Its weight decay."""
    probe_only: bool = False
    """Control: leave the backbone as it was drawn and train the probe alone."""

    def __post_init__(self) -> None:
        require_finite(self)
        require_at_most(self, dict.fromkeys(("directions", "hidden", "out"), 65_536))
        require(0 <= self.lamb <= 1, f"lamb must lie in [0, 1], got {self.lamb}")
        for name in ("directions", "hidden", "out"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        require(self.probe_lr > 0, f"probe_lr must be positive, got {self.probe_lr}")
        require(self.probe_weight_decay >= 0, f"probe_weight_decay must be at least 0, got {self.probe_weight_decay}")

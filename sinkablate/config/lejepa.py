"""Self-supervised training with LeJEPA (arXiv 2511.08544): views, projector, regularizer and online probe."""

from dataclasses import dataclass

from sinkablate.config.checks import require, require_at_most, require_finite


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """Several random views of each training image. A probability is the chance that a view gets a transformation."""

    count: int = 1
    """Number of views of each image. With 2 or more, these transformations replace those of data.augment."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest area of the random crop, as a fraction of the image's area in (0, 1]."""
    hflip: float = 0.5
    """Probability of a horizontal flip."""
    jitter: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2)
    """Strengths of brightness, contrast, saturation and hue jitter, at least 0; the hue's at most .5."""
    jitter_prob: float = 0.8
    """Probability of color jitter."""
    grayscale_prob: float = 0.2
    """Probability of conversion to gray."""
    blur_prob: float = 0.5
    """Probability of Gaussian blur with a sigma between .1 and 2 pixels."""
    blur_size: int = 7
    """Width of the blur's kernel in pixels, an odd number."""
    solarize_prob: float = 0.2
    """Probability of solarization: pixel values of 128 and more are inverted."""

    def __post_init__(self) -> None:
        require_finite(self)
        require_at_most(self, {"count": 1024})
        require(self.count >= 1, f"count must be at least 1, got {self.count}")
        require(
            0 < self.scale[0] <= self.scale[1] <= 1,
            f"scale must be two numbers in (0, 1], the smaller first, got {list(self.scale)}",
        )
        for name in ("hflip", "jitter_prob", "grayscale_prob", "blur_prob", "solarize_prob"):
            require(0 <= getattr(self, name) <= 1, f"{name} must lie in [0, 1], got {getattr(self, name)}")
        require(
            all(strength >= 0 for strength in self.jitter) and self.jitter[3] <= 0.5,
            f"jitter must be four numbers, all at least 0 and the last (hue) at most .5, got {list(self.jitter)}",
        )
        require(
            self.blur_size >= 1 and self.blur_size % 2 == 1, f"blur_size must be odd and positive, got {self.blur_size}"
        )


@dataclass(frozen=True, kw_only=True)
class LeJepaConfig:
    """The LeJEPA objective, lambda SIGReg(z) + (1 - lambda) mean((mean_v z - z)^2), and the online probe."""

    lamb: float = 0.02
    """Weight lambda of the regularizer, from 0 to 1."""
    num_slices: int = 256
    """Number of random unit directions on which SIGReg compares the embeddings with a normal distribution; new
    directions are drawn at every step."""
    all_ranks: bool = False
    """Average the regularizer and the projector's batch norm over all processes, so that the result does not depend on
    the number of processes. The published runs average within each process."""
    proj_hidden_dim: int = 2048
    """Width of the projector's two hidden layers."""
    proj_dim: int = 128
    """Width of the projector's output."""
    probe_lr: float = 1e-3
    """Peak learning rate of the online probe, a linear classifier on the detached features."""
    probe_weight_decay: float = 1e-7
    """Weight decay of the online probe."""
    clip_probe: bool = True
    """Whether trainer.gradient_clip_val limits the norm of all gradients together; with false, as in the LeJEPA runs of
    arXiv 2606.08105, it limits those of the backbone and the projector, and the probe's are not clipped."""
    probe_only: bool = False
    """Keep the backbone at its initial weights and train the probe alone, as a control."""

    def __post_init__(self) -> None:
        require_finite(self)
        require_at_most(self, dict.fromkeys(("num_slices", "proj_hidden_dim", "proj_dim"), 65_536))
        require(0 <= self.lamb <= 1, f"lamb must lie in [0, 1], got {self.lamb}")
        for name in ("num_slices", "proj_hidden_dim", "proj_dim"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        require(
            self.clip_probe or not self.probe_only, "clip_probe=false leaves no gradient to clip with probe_only=true"
        )
        require(self.probe_lr > 0, f"probe_lr must be positive, got {self.probe_lr}")
        require(self.probe_weight_decay >= 0, f"probe_weight_decay must be at least 0, got {self.probe_weight_decay}")

"""How to find the neurons whose activations test-time registers take over."""

from dataclasses import dataclass
from typing import Literal

from sinkablate.config.checks import require, require_finite
from sinkablate.config.types import known_fields, require_types


@known_fields
@dataclass(frozen=True, kw_only=True)
class RegisterNeuronConfig:
    """The MLP neurons that write the outlier tokens of a model, found on images (arXiv 2506.08010)."""

    top: int = 10
    """Number of neurons: those with the largest mean activation where the outliers are. The paper used 10 in an
    OpenCLIP ViT-B/16 and 50 in a DINOv2 ViT-L/14."""
    blocks: tuple[int, ...] | None = None
    """Blocks whose neurons are considered; negative numbers count from the last. Null takes the blocks up to the first
    whose output has outliers: the neurons of later blocks read outliers instead of writing them."""
    outlier_block: int | None = None
    """Block after which outliers are looked for; negative numbers count from the last. Null takes the block whose
    output has the most, or the second to last if there are none anywhere."""
    outlier_norm: float | None = None
    """A fixed norm above which a patch is an outlier, such as 150 for a DINOv2 ViT-L; null finds it from the data."""
    choice: Literal["largest", "random"] = "largest"
    """largest: these neurons. random: the same number of other neurons in the same blocks, as a control."""
    seed: int = 0
    """Seed of the random neurons."""
    images: str | None = None
    """Images to find the neurons on, as for diagnose: a folder, a list, shards, or `builtin`. Null takes the probe
    images of a run, and `builtin` for any other model."""
    limit: int = 500
    """Largest number of these images, from the first."""

    def __post_init__(self) -> None:
        require_types(self)
        for name in ("top", "limit"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        require_finite(self)
        require(
            self.outlier_norm is None or self.outlier_norm > 0,
            f"outlier_norm must be positive, got {self.outlier_norm}",
        )
        require(self.seed >= 0, f"seed must be at least 0, got {self.seed}")
        require(self.blocks is None or len(self.blocks) > 0, "blocks is empty; leave it out to find them from the data")
        require(self.images is None or self.images != "", "images is empty; leave it out for the default images")

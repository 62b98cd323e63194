"""Learned position embeddings on another grid of patches: how they are resampled, and a record of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isqrt
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkablate.config import ConfigError, PosEmbedInterpolation
from sinkablate.vit.inputs import patch_size_of

Grid = tuple[int, int]
"""Rows and columns of patches."""


@dataclass(frozen=True, kw_only=True)
class Interpolation:
    """How a position embedding is interpolated: bicubic (a = -0.75), with these settings."""

    antialias: bool
    """Whether the kernel is widened when the grid becomes smaller."""
    offset: float
    """Added to the numbers of new rows and columns before these are divided by the old ones to get the scale."""

    def resample(self, positions: Tensor, old: Grid, new: Grid) -> Tensor:
        """Resample a position embedding in fp32; the rows of prefix tokens stay as they are.

        Args:
            positions: (1, prefix + rows x columns, D).
            old: Its grid.
            new: The grid of the result.
        """
        prefix = positions.shape[1] - old[0] * old[1]
        patches = positions[:, prefix:].float().unflatten(1, old).permute(0, 3, 1, 2)
        scale = [(new[i] + self.offset) / old[i] for i in (0, 1)]
        shape: dict[str, Any] = {"scale_factor": scale} if self.offset else {"size": new}
        patches = F.interpolate(patches, mode="bicubic", align_corners=False, antialias=self.antialias, **shape)
        patches = patches.permute(0, 2, 3, 1).flatten(1, 2).to(positions)
        return torch.cat((positions[:, :prefix], patches), dim=1)


POSITION_NAMES = (
    "pos_embed",
    "positional_embedding",
    "position_embeddings",
    "position_embedding.weight",
    "pos_embedding",
)
"""Ends of the names of position embeddings in files of timm, CLIP, transformers and JAX."""
INTERPOLATIONS: Mapping[str, Interpolation] = MappingProxyType(
    {
        "timm": Interpolation(antialias=True, offset=0.0),
        "dinov2": Interpolation(antialias=False, offset=0.1),
        "transformers": Interpolation(antialias=False, offset=0.0),
    }
)
"""The methods. `dinov2` is that of the official code for models without registers; its models with registers use the
same settings as timm. Models of transformers apply their method themselves, in every forward pass."""


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """What was done to the position embedding of a model."""

    method: str
    """A name in `INTERPOLATIONS`."""
    old: Grid
    new: Grid

    @classmethod
    def between(cls, old: Grid, new: Grid, patch: int, method: str) -> "Resampling":
        """Return the record for two sizes of images (height, width) in pixels.

        Args:
            old: The size that the position embedding was trained with.
            new: The size of the images.
            patch: Side of a patch in pixels.
            method: A name in `INTERPOLATIONS`.
        """
        return cls(method=method, old=(old[0] // patch, old[1] // patch), new=(new[0] // patch, new[1] // patch))

    @property
    def sentence(self) -> str:
        """The grids and the method in words."""
        how = INTERPOLATIONS[self.method]
        settings = f"bicubic, antialias {'on' if how.antialias else 'off'}, offset {how.offset:g}"
        return (
            f"position embedding resampled from {self.old[0]} x {self.old[1]} to {self.new[0]} x {self.new[1]} patches "
            f"({self.method}: {settings})"
        )

    def plain(self) -> dict[str, Any]:
        """Return the record as plain values, for `summary.json`."""
        how = asdict(INTERPOLATIONS[self.method])
        return {"method": self.method, "mode": "bicubic", **how, "from": list(self.old), "to": list(self.new)}


@dataclass(frozen=True, kw_only=True)
class PositionRecord:
    """The method chosen for a model, and what was done to its position embedding when it was built."""

    method: PosEmbedInterpolation = "timm"
    resampling: Resampling | None = None
    """None if the weights have the grid of the model, or the model was not built from weights."""


def record_of(model: nn.Module) -> PositionRecord:
    """Return the record that `build_backbone` attached to a model; the defaults for any other model."""
    record = getattr(model, "position_record", None)
    return record if isinstance(record, PositionRecord) else PositionRecord()


def position_summary(model: nn.Module) -> dict[str, Any]:
    """Return the entry `position_embedding` of a `summary.json`; nothing if no position embedding was resampled."""
    resampling = record_of(model).resampling
    return {} if resampling is None else {"position_embedding": resampling.plain()}


def position_notes(model: nn.Module) -> list[str]:
    """Return how the position embedding was resampled as lines to be printed; none if it was not."""
    resampling = record_of(model).resampling
    return [] if resampling is None else [resampling.sentence]


def change_input_size(model: Any, size: Grid, method: PosEmbedInterpolation) -> Resampling | None:
    """Change the input size of a timm model in place, and resample its position embedding if the grid differs.

    Args:
        model: The model, which has timm's `set_input_size`.
        size: Height and width of the images in pixels.
        method: Name of the interpolation.

    Returns:
        What was done; None if the grid stays the same, or the model has no learned position embedding.

    Raises:
        ConfigError: The method is not timm's, and the model has no learned position embedding.
    """
    old, positions = getattr(model.patch_embed, "grid_size", None), getattr(model, "pos_embed", None)
    if old is None or not isinstance(positions, Tensor) or positions.ndim != 3:
        if method != "timm":
            raise ConfigError(
                f"pos_embed_interpolation={method}: {type(model).__name__} has no learned position embedding; use timm"
            )
        model.set_input_size(img_size=size)
        return None
    model.set_input_size(img_size=size)
    new = model.patch_embed.grid_size
    if new == old:
        return None
    if method != "timm":
        rows = INTERPOLATIONS[method].resample(positions.detach(), old, new)
        model.pos_embed = nn.Parameter(rows, requires_grad=positions.requires_grad)
    return Resampling(method=method, old=old, new=new)


def grid_of_weights(model: Any, weights: Mapping[str, Tensor] | None) -> Grid | None:
    """Return the grid of the position embedding in the weights that a timm model was built from.

    Args:
        model: The model, of any input size.
        weights: The tensors of a file under their names in it; None if the weights are timm's own.

    Returns:
        Rows and columns; None if the model or the file has no learned position embedding.
    """
    if getattr(model, "pos_embed", None) is None or not hasattr(model.patch_embed, "grid_size"):
        return None
    patch = patch_size_of(model)
    height, width = (side // patch for side in model.pretrained_cfg["input_size"][-2:])
    if weights is None:
        return height, width
    counts = [  # those of the image encoder before those of a text encoder
        tensor.shape[-2]
        for name, tensor in sorted(weights.items(), key=lambda item: "visual" not in item[0])
        if name.endswith(POSITION_NAMES) and tensor.ndim in (2, 3) and tensor.shape[-1] == model.embed_dim
    ]
    if not counts:
        return None
    side = isqrt(counts[0])  # prefix tokens are too few for another row and column
    return (height, width) if 0 <= counts[0] - height * width <= model.num_prefix_tokens else (side, side)

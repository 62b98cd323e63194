"""What was decided about the weights of a model while they were loaded."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from sinkablate.errors import listed
from sinkablate.files.writing import as_stored
from sinkablate.vit.hub_folder import names_location

EXAMPLES = 3
"""Largest number of names that a sentence lists."""


@dataclass(frozen=True, kw_only=True)
class WeightsOrigin:
    """Where the weights of a model come from, and how they were read."""

    source: str
    """The file, or the name on the hub."""
    key: str = ""
    """Key of the weights in the file; empty if the file contains nothing else."""
    others: tuple[str, ...] = ()
    """Keys of other weights in the file."""
    prefix: str = ""
    """Prefix that was removed from the names of the tensors."""
    unread: tuple[str, ...] = ()
    """Names of tensors that are not part of the model."""
    dtypes: tuple[str, ...] = ()
    """Floating-point types of the file. The model itself is in float32."""

    @property
    def sentences(self) -> list[str]:
        """One sentence for each decision that a user should know about."""
        sentences = []
        if self.others:
            sentences.append(
                f"{self.key} was read from {self.source}, which also contains {listed(self.others, EXAMPLES)}; "
                "choose with checkpoint_key"
            )
        if self.prefix:
            sentences.append(f"the prefix {self.prefix} was removed from the names of the weights")
        if self.unread:
            sentences.append(f"not part of the model: {len(self.unread)} tensors ({listed(self.unread, EXAMPLES)})")
        if lower := [name for name in self.dtypes if name != "float32"]:
            sentences.append(f"the weights are stored in {', '.join(lower)} and used in float32")
        return sentences


def unused_weights_notes(backbone: Mapping[str, Any]) -> list[str]:
    """Say that a model with weights in its folder or repository starts from random ones.

    Args:
        backbone: The keys of `model.backbone`, as plain values.
    """
    name = backbone.get("name", "")
    if not names_location(name) or backbone.get("pretrained") or backbone.get("checkpoint"):
        return []
    return [f"training starts from random weights; to start from those of {name}, set model.backbone.pretrained=true"]


def loading_summary(model: nn.Module) -> dict[str, Any]:
    """Return the entry `loading` of a `summary.json`; nothing for random weights and those of a run."""
    origin = getattr(model, "weights_origin", None)
    return {"loading": as_stored(asdict(origin))} if isinstance(origin, WeightsOrigin) else {}


def loading_notes(model: nn.Module) -> list[str]:
    """Return how the weights of a model were read as lines to be printed."""
    origin = getattr(model, "weights_origin", None)
    return origin.sentences if isinstance(origin, WeightsOrigin) else []

"""Selection of the heads that an intervention edits."""

from dataclasses import dataclass

from sinkablate.config.checks import require
from sinkablate.config.types import require_types


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Selection of the heads that are edited, by the number of sink events in a diagnosis."""

    min_events: int = 50
    """Smallest number of sink events of an edited head."""
    top: int = 16
    """Number of heads per class in blocks 1 and later: those with the most events of the class."""
    top_first_block: int = 4
    """Number of heads per class in block 0, whose input is the patch embedding."""
    min_class_events: int = 20
    """Smallest number of events of its class for a head to be counted in that class."""

    def __post_init__(self) -> None:
        require_types(self)
        for name in ("min_events", "min_class_events"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("top", "top_first_block"):
            require(getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}")

"""Which heads an intervention edits."""

from dataclasses import dataclass

from sinkablate.config.checks import require


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Which heads are edited, from the events of a diagnosis."""

    min_events: int = 50
    """A head is edited when it has at least so many events."""
    top: int = 16
    """Heads of each class in blocks >= 1, those with most events of it."""
    top_first_block: int = 4
    """The same for block 0, which reads raw patch embeddings."""
    min_class_events: int = 20
    """A head counts for its class with at least so many events of it."""

    def __post_init__(self) -> None:
        for name in ("min_events", "min_class_events"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("top", "top_first_block"):
            require(getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}")

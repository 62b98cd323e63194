"""The numbers behind quantities, events and labels."""

from dataclasses import dataclass

from sinkablate.config.checks import require, require_finite


@dataclass(frozen=True, kw_only=True)
class ThresholdConfig:
    """The numbers behind the event rules. No published rule is calibrated: they are printed with every result."""

    routed_min: float = 0.5
    """A query is routed to the dominant column s when A_is reaches this."""
    routed_grid: tuple[float, ...] = (0.3, 0.4, 0.6, 0.7)
    """Other values of `routed_min` under which the share of routed queries is kept, for the sensitivity table."""
    event_min: float = 0.9
    """causal, lejepa: share of routed queries that makes a sink event."""
    adaptive_min: float = 0.1
    """adaptive: share of routed queries that makes a sink event."""
    def1_eps: tuple[float, ...] = (0.5, 0.3, 0.2, 0.1)
    """def1: every query gives s at least 1 - eps; one rule per eps."""
    nop_max: float = 0.2
    """NOP: the sink's value norm over the mean of the others is at most this."""
    broadcast_min: float = 0.5
    """Broadcast: the same ratio is at least this."""
    rank_max: float = 1.5
    """Broadcast: the head's update has at most this stable rank."""
    rel_update_min: float = 0.01
    """A broadcast is qualified when the head's update is at least this times the residual stream."""
    quiet_max: float = 0.2
    """A query is quiet when its update is at most this times the mean value norm."""
    outlier_sd: float = 3.0
    """A token norm is an outlier beyond the mean plus this many standard deviations."""
    outlier_norm: float | None = None
    """A fixed limit on token norms instead, such as 150 (arXiv 2309.16588)."""
    group_top_k: int = 4
    """Group events sum the mass of this many strongest columns (and, apart, of all registers)."""

    def __post_init__(self) -> None:
        require_finite(self)
        for name in ("routed_min", "event_min", "adaptive_min"):
            require(0 < getattr(self, name) <= 1, f"{name} must lie in (0, 1], got {getattr(self, name)}")
        require(all(0 < eps < 1 for eps in self.def1_eps), f"def1_eps must lie in (0, 1), got {list(self.def1_eps)}")
        require(0 <= self.nop_max < self.broadcast_min, f"nop_max must lie in [0, broadcast_min), got {self.nop_max}")
        require(
            all(0 < value <= 1 for value in self.routed_grid),
            f"routed_grid must lie in (0, 1], got {list(self.routed_grid)}",
        )
        require(self.rel_update_min >= 0, f"rel_update_min must be at least 0, got {self.rel_update_min}")
        require(self.rank_max >= 1, f"rank_max must be at least 1, got {self.rank_max}")
        require(self.quiet_max >= 0, f"quiet_max must be at least 0, got {self.quiet_max}")
        require(
            self.outlier_norm is None or self.outlier_norm > 0,
            f"outlier_norm must be positive, got {self.outlier_norm}",
        )
        require(self.group_top_k >= 1, f"group_top_k must be at least 1, got {self.group_top_k}")

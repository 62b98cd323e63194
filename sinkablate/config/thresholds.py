"""Thresholds of the sink rules."""

from dataclasses import dataclass

from sinkablate.config.checks import require, require_finite
from sinkablate.config.types import known_fields, require_types


@known_fields
@dataclass(frozen=True, kw_only=True)
class ThresholdConfig:
    """Thresholds of events and labels. No published rule is calibrated, so every result comes with its thresholds.

    Args:
        routed_min: A query i is routed to the dominant column s if its weight A_is is at least this, in (0, 1].
        routed_grid: Other values of routed_min for which the fraction of routed queries is stored, for the sensitivity
            table.
        event_min: For the rules causal and lejepa, the smallest fraction of routed queries of a sink event, in (0, 1].
        adaptive_min: For the rule adaptive, the smallest fraction of routed queries of a sink event, in (0, 1].
        def1_eps: Values of eps, each of which makes one rule: every query must give the sink a weight of at least 1 -
            eps.
        nop_max: For a NOP label, the largest norm of the sink's value relative to the mean of the other values.
        broadcast_min: For a broadcast label, the smallest such relative norm.
        rank_max: For a broadcast label, the largest stable rank of the head's update.
        rel_update_min: For a qualified broadcast, the smallest norm of the head's update relative to the residual
            stream.
        quiet_max: A query is quiet if the norm of its update is at most this times the mean norm of the values.
        outlier_sd: A token norm is an outlier if it exceeds the mean by this number of standard deviations.
        outlier_norm: A fixed limit on token norms that replaces outlier_sd, such as 150 (arXiv 2309.16588); null
            disables it.
        group_top_k: Number of strongest columns whose mass is summed for group events; registers are also summed
            separately.

    Raises:
        UserError: A value has the wrong type or lies outside its range.
    """

    routed_min: float = 0.5
    routed_grid: tuple[float, ...] = (0.3, 0.4, 0.6, 0.7)
    event_min: float = 0.9
    adaptive_min: float = 0.1
    def1_eps: tuple[float, ...] = (0.5, 0.3, 0.2, 0.1)
    nop_max: float = 0.2
    broadcast_min: float = 0.5
    rank_max: float = 1.5
    rel_update_min: float = 0.01
    quiet_max: float = 0.2
    outlier_sd: float = 3.0
    outlier_norm: float | None = None
    group_top_k: int = 4

    def __post_init__(self) -> None:
        require_types(self)
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

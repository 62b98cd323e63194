"""What a user can set: frozen, keyword-only dataclasses that validate themselves. Standard library only.

Each class is one group of keys of the command line and the YAML files. Errors name the full key, because a
dataclass does not know where in the tree it sits: the prefix is the one place where the class is used.
"""

from sinkablate.config.attention import (
    AttentionConfig,
    Gate,
    GatePosition,
    PathwayConfig,
    PointwiseFunction,
    Score,
    Sink,
)
from sinkablate.config.checks import build, flat, require, require_finite, require_nonempty
from sinkablate.config.data import EMBEDDED_CLASSES, AugmentConfig, ImageConfig, SourceConfig
from sinkablate.config.lejepa import LeJepaConfig, ViewsConfig
from sinkablate.config.model import BackboneConfig, ModelChoice, ToyConfig
from sinkablate.config.selection import SelectionConfig
from sinkablate.config.thresholds import ThresholdConfig
from sinkablate.config.training import CommonModeConfig, EmaConfig, LossConfig, OptimConfig, WandbConfig

__all__ = [
    "EMBEDDED_CLASSES",
    "AttentionConfig",
    "AugmentConfig",
    "BackboneConfig",
    "CommonModeConfig",
    "EmaConfig",
    "Gate",
    "GatePosition",
    "ImageConfig",
    "LeJepaConfig",
    "LossConfig",
    "ModelChoice",
    "OptimConfig",
    "PathwayConfig",
    "PointwiseFunction",
    "Score",
    "SelectionConfig",
    "Sink",
    "SourceConfig",
    "ThresholdConfig",
    "ToyConfig",
    "ViewsConfig",
    "WandbConfig",
    "build",
    "flat",
    "require",
    "require_finite",
    "require_nonempty",
]

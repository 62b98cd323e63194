"""Every setting a user can change: frozen, keyword-only dataclasses that validate themselves.

Each class is one group of keys of the command line and the YAML files. Errors name keys relative to the class;
`build` adds the key of the group. This folder imports the standard library only.
"""

from sinkablate.config.attention import AttentionConfig, Gate, GatePosition, PathwayConfig, PointwiseFunction
from sinkablate.config.checks import ConfigError, build, flat, keys_below, require, require_finite, require_nonempty
from sinkablate.config.data import BUILT_IN, EMBEDDED_CLASSES, AugmentConfig, ImageConfig, SourceConfig
from sinkablate.config.evaluation import (
    DiscoveryConfig,
    EvaluationConfig,
    FeatureConfig,
    KnnConfig,
    LinearConfig,
    QuantizationConfig,
    SegmentationConfig,
    SinksConfig,
)
from sinkablate.config.image_size import ImageSize, height_and_width, image_size, size_text, size_value
from sinkablate.config.lejepa import LeJepaConfig, ViewsConfig
from sinkablate.config.model import BackboneConfig, ModelChoice, PosEmbedInterpolation, ToyConfig
from sinkablate.config.register_neurons import RegisterNeuronConfig
from sinkablate.config.selection import SelectionConfig
from sinkablate.config.thresholds import ThresholdConfig
from sinkablate.config.training import CommonModeConfig, EmaConfig, LossConfig, OptimConfig, RetrofitConfig, WandbConfig

__all__ = [
    "BUILT_IN",
    "EMBEDDED_CLASSES",
    "AttentionConfig",
    "AugmentConfig",
    "BackboneConfig",
    "CommonModeConfig",
    "ConfigError",
    "DiscoveryConfig",
    "EmaConfig",
    "EvaluationConfig",
    "FeatureConfig",
    "Gate",
    "GatePosition",
    "ImageConfig",
    "ImageSize",
    "KnnConfig",
    "LeJepaConfig",
    "LinearConfig",
    "LossConfig",
    "ModelChoice",
    "OptimConfig",
    "PathwayConfig",
    "PointwiseFunction",
    "PosEmbedInterpolation",
    "QuantizationConfig",
    "RegisterNeuronConfig",
    "RetrofitConfig",
    "SegmentationConfig",
    "SelectionConfig",
    "SinksConfig",
    "SourceConfig",
    "ThresholdConfig",
    "ToyConfig",
    "ViewsConfig",
    "WandbConfig",
    "build",
    "flat",
    "height_and_width",
    "image_size",
    "keys_below",
    "require",
    "require_finite",
    "require_nonempty",
    "size_text",
    "size_value",
]

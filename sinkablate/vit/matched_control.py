"""The parameter-matched control: a model without gates, widened to the parameter count of a gated model."""

import math

from torch import nn

from sinkablate.config import ConfigError


def gate_parameters(gate: str, dim: int, num_heads: int, attn_dim: int) -> int:
    """Return the number of parameters a gate adds to a block: D H + H (headwise) or D² + D (elementwise, attn_dim = D).

    Args:
        gate: none, headwise or elementwise.
        dim: Model width D.
        num_heads: H.
        attn_dim: Width of the concatenated heads.
    """
    width = {"none": 0, "headwise": num_heads, "elementwise": attn_dim}[gate]
    return width * (dim + 1)


def widen_mlp(mlp: nn.Module, extra: int) -> int:
    """Widen the hidden layer of a two-layer MLP by the number of units closest to `extra` parameters.

    Each hidden unit has 2 D + 1 parameters (2 D without biases); the difference is at most half of that. The weights of
    the new layers are left as torch initializes them.

    Returns:
        The number of added parameters minus `extra`.

    Raises:
        ConfigError: The MLP is of another kind.
    """
    fc1, fc2 = getattr(mlp, "fc1", None), getattr(mlp, "fc2", None)
    if not (
        isinstance(fc1, nn.Linear)
        and isinstance(fc2, nn.Linear)
        and fc1.out_features == fc2.in_features
        and isinstance(getattr(mlp, "norm", None), nn.Identity)
    ):
        raise ConfigError(f"match_parameters: {type(mlp).__name__} is not a plain two-layer MLP")
    unit = fc1.in_features + fc2.out_features + (fc1.bias is not None)
    units = math.floor(extra / unit + 0.5)
    hidden = fc1.out_features + units
    mlp.fc1 = nn.Linear(fc1.in_features, hidden, bias=fc1.bias is not None)
    mlp.fc2 = nn.Linear(hidden, fc2.out_features, bias=fc2.bias is not None)
    return units * unit - extra

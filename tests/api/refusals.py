"""A tiny model's size, images for it, and the check that a call is refused in one line."""

import re
from typing import Any

import pytest
import torch

import sinkablate as sa

SMALL: dict[str, Any] = {"embed_dim": 32, "num_heads": 2, "depth": 2}
IMAGES = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def refused(message: str) -> Any:
    """Expect a `UserError` whose single line begins with this text."""
    return pytest.raises(sa.UserError, match="^" + re.escape(message) + r"[^\n]*$")

"""The error for weights that do not fit a model: how many tensors match, and examples of those that do not."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from sinkablate.config import BackboneConfig, ConfigError
from sinkablate.errors import first_line, listed
from sinkablate.vit.checkpoint_files import Checkpoint

EXAMPLES = 3
SHAPE = re.compile(r"size mismatch for (\S+): .*torch\.Size\(\[(.*?)\]\).*torch\.Size\(\[(.*?)\]\)")


class Attempt(NamedTuple):
    """A failed attempt to load weights."""

    error: RuntimeError
    """What torch or timm raised."""
    matched: int
    """Number of tensors whose name and shape fit."""
    prefix: str
    """What was removed from the names."""


def misfit(config: BackboneConfig, checkpoint: Checkpoint, attempts: Sequence[Attempt], total: int) -> ConfigError:
    """Describe the attempt with the most matches.

    Args:
        config: Names the model and the file.
        checkpoint: The content of the file.
        attempts: What failed.
        total: Number of tensors of the model.
    """
    best = max(attempts, key=lambda attempt: attempt.matched)
    text = str(best.error)
    parts = [f"{best.matched} of the {total} tensors of the model match"]
    if best.prefix:
        parts[0] += f" without the prefix {best.prefix}"
    for label, title in {"missing": "Missing key", "not in the model": "Unexpected key"}.items():
        line = next((line for line in text.splitlines() if line.strip().startswith(title)), "")
        if names := re.findall(r'"([^"]+)"', line):
            parts.append(f"{label}: {listed(names, EXAMPLES)}")
    if shapes := [f"{name} ({stored}) instead of ({own})" for name, stored, own in SHAPE.findall(text)]:
        parts.append(f"other shapes: {listed(shapes, EXAMPLES)}")
    if len(parts) == 1:
        parts.append(first_line(best.error))
    if any("encoder.layer.0.attention" in name for name in checkpoint.weights):
        parts.append("the names are those of a model of transformers, which is measured with --hf FOLDER")
    return ConfigError(f"checkpoint={config.checkpoint} does not fit name={config.name}: {'; '.join(parts)}")

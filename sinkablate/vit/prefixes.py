"""Prefixes of the names of weights, which wrappers and training scripts add."""

from collections import Counter
from collections.abc import Collection, Iterator

from torch import Tensor

from sinkablate.config import ConfigError
from sinkablate.errors import listed
from sinkablate.vit.checkpoint_files import EMA_KEYS, Checkpoint

DECODERS = ("decoder_", "decoder.")
"""Beginnings of the names of tensors that only the pretraining of a masked autoencoder needs."""


def likely_prefixes(checkpoint: Checkpoint, names: Collection[str]) -> list[str]:
    """Return the prefixes that may have to be removed from the names of a file, the most likely first.

    A prefix is likely if at least half of the model's names follow it. The names as they are come first, because timm
    knows some original layouts that begin with a prefix, such as `visual.trunk.`. If there is no likely prefix, those
    that all names of the file share are tried.

    Args:
        checkpoint: The file.
        names: Names of the model's parameters and buffers.

    Raises:
        ConfigError: Several prefixes are likely, and none of them is that of a moving average.
    """
    known = set(names)
    counts = Counter(
        prefix for name in checkpoint.weights for prefix in _prefixes(name) if name[len(prefix) :] in known
    )
    likely = [prefix for prefix, count in counts.items() if 2 * count >= len(known)]
    if "" in likely:
        return [""]
    if averages := [prefix for prefix in likely if prefix.partition(".")[0] in EMA_KEYS]:
        return averages[:1]
    if len(likely) > 1:
        raise ConfigError(
            f"checkpoint={checkpoint.path}: contains the model under several prefixes: {listed(sorted(likely))}; "
            "choose with checkpoint_key=NAME",
            remedies=("checkpoint_key=NAME",),
        )
    return ["", *(likely or _shared(checkpoint.weights))]


def _prefixes(name: str) -> Iterator[str]:
    """Yield every prefix of a name that ends with a dot, and the empty one."""
    yield ""
    for position, letter in enumerate(name):
        if letter == ".":
            yield name[: position + 1]


def _shared(names: Collection[str]) -> list[str]:
    """Return the prefixes that all names share, the shortest first."""
    first = next(iter(names))
    return [prefix for prefix in _prefixes(first) if prefix and all(name.startswith(prefix) for name in names)]


def without_prefix(weights: dict[str, Tensor], prefix: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the weights whose names begin with a prefix, without it, and the names of all others.

    The decoder of a masked autoencoder is left out as well.
    """
    inner = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    kept = {name: value for name, value in inner.items() if not name.startswith(DECODERS)}
    return kept, tuple(name for name in weights if name.removeprefix(prefix) not in kept or not name.startswith(prefix))

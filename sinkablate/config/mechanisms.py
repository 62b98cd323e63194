"""The names that `attention.score` and `attention.sink` accept.

A configuration is checked before torch is imported, so the names are kept apart from the functions they stand for,
which are in `sinkablate.attention`. `register_score` and `register_sink` there add to both.
"""

from sinkablate.config.checks import require

SCORES = {
    "softmax": True,
    "clipped_softmax": False,
    "relu": False,
    "pointwise": False,
    "polynomial": False,
    "sigmoid": False,
}
"""Score functions, and whether each can be combined with a sink."""
SINKS = ["none", "zero", "learned", "kv_bias"]
"""Sinks; `none` is plain attention."""


def register_score_name(name: str, *, accepts_sink: bool) -> None:
    """Accept another value of `attention.score`.

    Raises:
        UserError: The name is taken.
    """
    require(name not in SCORES, f"score={name}: a score of this name already exists; choose another name")
    SCORES[name] = accepts_sink


def register_sink_name(name: str) -> None:
    """Accept another value of `attention.sink`.

    Raises:
        UserError: The name is taken.
    """
    require(name not in SINKS, f"sink={name}: a sink of this name already exists; choose another name")
    SINKS.append(name)

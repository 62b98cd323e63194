"""Sinks: one extra key column per head, on which a softmax row can put mass that no token should receive."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from sinkablate.config.mechanisms import register_sink_name

Part = Literal["logit", "key", "value"]


@dataclass(frozen=True, kw_only=True)
class Sink:
    """The extra column of every head: its key, its value, and an offset on its logit.

    A part named in `learned` is a parameter: `sink_logit` (H,), which starts at zero, `sink_key` or `sink_value`
    (H, 1, d), which start with a standard deviation of .02. The other parts are zero unless a function computes them.
    """

    learned: tuple[Part, ...] = ()
    """The parts that are parameters."""
    key: Callable[[Tensor], Tensor] | None = None
    """Computes the key (B or 1, H or 1, 1, d) from the keys of all tokens (B, H, N, d)."""
    value: Callable[[Tensor], Tensor] | None = None
    """Computes the value from the values of all tokens, in the same way."""

    @property
    def takes_null(self) -> bool:
        """Whether the column adds nothing to the output, because its value is zero."""
        return self.value is None and "value" not in self.learned

    @property
    def is_denominator(self) -> bool:
        """Whether the column only adds a term that is the same for every query to the denominator of softmax."""
        return self.takes_null and self.key is None and "key" not in self.learned

    @property
    def columns(self) -> tuple[Literal["null", "kv_bias"], ...]:
        """The token type of the column: `null` if its value is zero, otherwise `kv_bias`."""
        return ("null",) if self.takes_null else ("kv_bias",)


SINKS: dict[str, Sink | None] = {
    "none": None,
    "zero": Sink(),
    "learned": Sink(learned=("logit",)),
    "kv_bias": Sink(learned=("key", "value")),
}
"""The sink of each value of `attention.sink`."""


def register_sink(name: str, sink: Sink) -> None:
    """Make a sink available as `attention.sink=<name>`, in this process.

    Raises:
        UserError: A sink of this name already exists.
    """
    register_sink_name(name)
    SINKS[name] = sink

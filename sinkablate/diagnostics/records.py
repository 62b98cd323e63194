"""Everything measured on a set of images, as arrays whose first axis is images; merged from batches and ranks.

Values are kept per image, because medians and quantiles of batches cannot be combined; a probe set takes a few
megabytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sinkablate.vit.tokens import TextTokenType, TokenLayout, TokenType

Array = NDArray[np.float32]
NO_TOKEN = -1
"""Stands for the type of a token after the end of a text."""


@dataclass(frozen=True)
class Records:
    """Measurements of n images on L blocks of H heads."""

    order: NDArray[np.int64]
    """Position of each image in the full set, (n,)."""
    layout: TokenLayout
    """The sequence of tokens in the blocks."""
    heads: dict[str, Array]
    """Quantity -> (n, L, H); see `heads.py`."""
    mass: dict[str, Array]
    """Token type -> share of attention mass, (n, L)."""
    candidates: dict[str, Array]
    """Token type -> number of key columns of the type that can be dominant, (n, L)."""
    tokens: dict[str, Array]
    """Quantities of each block's tensors, (n, L): variance_in and variance_out over tokens, register_cosine; max_abs,
    kurtosis and massive of its output, max_abs_attn and kurtosis_attn of its attention output before LayerScale."""
    norms: Array
    """L2 norm of every token of each block's output, before the final norm, (n, L, N)."""
    input_norms: Array
    """The same of each block's input, for the S blocks whose input is not the output of another measured block, such as
    block 0, (n, S, N)."""
    payload_sum: NDArray[np.float64]
    """Sum over images of the payload of each head's dominant column, (L, H, d)."""
    payload_squares: NDArray[np.float64]
    """Sum over images of the payload's squared norm, (L, H)."""
    token_types: NDArray[np.int8] | None = None
    """Texts only: `TextTokenType` of every token, (n, N). In a text shorter than N tokens, the type of the rest is
    `NO_TOKEN` and its norm NaN; `layout` has the length of the longest text."""
    patch_variance: Array | None = None
    """Variance of the pixels of every patch, (n, rows, columns); see `patch_variance`. None if the input does not
    consist of images or if their patches do not fill a grid."""

    @property
    def unit(self) -> str:
        """What was measured: image or text."""
        return "image" if self.token_types is None else "text"

    @property
    def kinds(self) -> type[TokenType] | type[TextTokenType]:
        """The token types that can occur."""
        return TokenType if self.token_types is None else TextTokenType

    @property
    def types(self) -> NDArray[Any]:
        """Type of every token: (1, N) for images, which share a layout, (n, N) for texts."""
        return self.layout.types().numpy()[None] if self.token_types is None else self.token_types

    @classmethod
    def merge(cls, parts: Sequence[Self]) -> Self:
        """Merge the records of several batches or ranks, in the order of the full set."""
        order = np.concatenate([part.order for part in parts])
        by = np.argsort(order, kind="stable")

        def join(arrays: list[Array]) -> Array:
            return np.concatenate(arrays)[by]

        def sum_of(arrays: list[NDArray[np.float64]]) -> NDArray[np.float64]:
            return np.sum(arrays, axis=0)

        def join_all(name: str) -> dict[str, Array]:
            keys = getattr(parts[0], name)
            return {key: join([getattr(part, name)[key] for part in parts]) for key in keys}

        longest = max((part.layout for part in parts), key=lambda layout: layout.num_tokens)
        types = [
            _padded(part.token_types, longest.num_tokens, NO_TOKEN) for part in parts if part.token_types is not None
        ]
        variances = [part.patch_variance for part in parts if part.patch_variance is not None]
        same_grid = len(variances) == len(parts) and len({variance.shape[1:] for variance in variances}) == 1
        return cls(
            order=order[by],
            layout=longest,
            heads=join_all("heads"),
            mass=join_all("mass"),
            candidates=join_all("candidates"),
            tokens=join_all("tokens"),
            norms=join([_padded(part.norms, longest.num_tokens, np.nan) for part in parts]),
            input_norms=join([_padded(part.input_norms, longest.num_tokens, np.nan) for part in parts]),
            payload_sum=sum_of([part.payload_sum for part in parts]),
            payload_squares=sum_of([part.payload_squares for part in parts]),
            token_types=np.concatenate(types)[by] if types else None,
            patch_variance=join(variances) if same_grid else None,
        )


def _padded(values: NDArray[Any], length: int, fill: float) -> NDArray[Any]:
    """Return an array whose last axis is extended to a length."""
    missing = length - values.shape[-1]
    if not missing:
        return values
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)], constant_values=fill)

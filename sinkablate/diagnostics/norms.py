"""Norms of tokens and the attention they receive, by token type. Axis letters as in `view.py`."""

from itertools import accumulate
from math import nan

import numpy as np
import torch
from torch import Tensor

from sinkablate.vit.tokens import TextTokenType, TokenLayout, TokenType


def mass_by_type(mean: Tensor, layout: TokenLayout, extra: tuple[TokenType, ...] = ()) -> dict[str, Tensor]:
    """Return the share of a block's attention mass that each token type receives, (...) each; NaN for absent types.

    The shares sum to one, except with clipping or dead rows, which leave part of the mass unassigned.

    Args:
        mean: Mean event weight of each column (`routing.py`) over the heads of the block, (..., M).
        layout: Types of the first N columns.
        extra: Types of the columns beyond them.
    """
    counts = {
        TokenType.CLS: layout.num_cls,
        TokenType.REGISTER: layout.num_registers,
        TokenType.PATCH: layout.num_patches,
        **dict.fromkeys(extra, 1),
    }
    parts = torch.tensor_split(mean, list(accumulate(counts.values()))[:-1], dim=-1)
    received = {kind: part.sum(-1) for kind, part in zip(counts, parts, strict=True) if counts[kind]}
    missing = torch.full_like(mean[..., 0], nan)
    return {kind.label: received.get(kind, missing) for kind in TokenType}


def mass_by_text_type(mean: Tensor, types: Tensor) -> dict[str, Tensor]:
    """Return the share of a block's attention mass that each token type of a text receives, (...) each.

    As `mass_by_type`; NaN for types that a text does not have.

    Args:
        mean: As for `mass_by_type`.
        types: `TextTokenType` of each column, broadcastable to (..., M).
    """
    parts = {}
    for kind in TextTokenType:
        of_kind = types == kind
        parts[kind.label] = (mean * of_kind).sum(-1).masked_fill(~of_kind.any(-1), nan)
    return parts


def token_norms(x: Tensor) -> Tensor:
    """Return the L2 norm of every token, (..., N, D) -> (..., N)."""
    norms: Tensor = torch.linalg.vector_norm(x, dim=-1)
    return norms


def outliers(norms: Tensor, outlier_sd: float, absolute: float | None = None) -> Tensor:
    """Mark tokens whose norm is an outlier, (B, N) -> (B, N) bool.

    The limit is the mean plus `outlier_sd` standard deviations (population) over all tokens of the same image,
    whatever their type, so the result for an image does not depend on its batch. Among fewer than `outlier_sd`^2 + 2
    tokens, none can exceed this limit.

    Args:
        norms: Token norms of one block's output.
        outlier_sd: Number of standard deviations above the mean.
        absolute: A fixed limit instead, such as 150 in the registers paper.
    """
    if absolute is not None:
        return norms > absolute
    return norms > norms.mean(-1, keepdim=True) + outlier_sd * norms.std(-1, correction=0, keepdim=True)


def norm_summary(
    norms: Tensor, layout: TokenLayout, outlier_sd: float, absolute: float | None = None
) -> dict[str, dict[str, Tensor]]:
    """Return mean, median, p99, max and outlier share of token norms, over the images and tokens of each type.

    Medians of batches cannot be combined: collect the norms (B, N) of all images, then call this once.

    Args:
        norms: Token norms (B, N) of one block's output, before the final norm.
        layout: Types of the tokens.
        outlier_sd: As for `outliers`.
        absolute: As for `outliers`.

    Returns:
        {cls, register, patch: {mean, median, p99, max, outliers: scalar}}; NaN for absent types.
    """
    types = layout.types().to(norms.device)
    far = outliers(norms, outlier_sd, absolute)
    return {
        kind.label: _summary(norms[:, types == kind].flatten(), far[:, types == kind].flatten())
        for kind in (TokenType.CLS, TokenType.REGISTER, TokenType.PATCH)
    }


def text_norm_summary(
    norms: Tensor, types: Tensor, outlier_sd: float, absolute: float | None = None
) -> dict[str, dict[str, Tensor]]:
    """Return the summary of `norm_summary` for texts of different lengths; outliers are those of each text.

    Args:
        norms: Token norms (B, N) of one block's output; NaN after the end of a text.
        types: `TextTokenType` of each token, (B, N).
        outlier_sd: As for `outliers`.
        absolute: As for `outliers`.
    """
    far = torch.zeros_like(norms, dtype=torch.bool)
    inside = ~norms.isnan()
    lengths = inside.sum(-1)
    for length in lengths.unique():
        of_length = lengths == length
        far[of_length, :length] = outliers(norms[of_length, :length], outlier_sd, absolute)
    return {
        kind.label: _summary(norms[inside & (types == kind)], far[inside & (types == kind)])
        for kind in TextTokenType
        if kind != TextTokenType.NULL
    }


def _summary(norms: Tensor, far: Tensor) -> dict[str, Tensor]:
    """Summarize norms (n,) and outlier marks (n,); NaN for n = 0."""
    if norms.numel() == 0:
        return dict.fromkeys(("mean", "median", "p99", "max", "outliers"), norms.new_tensor(nan))
    # torch.quantile accepts at most 2^24 numbers.
    median, p99 = norms.new_tensor(np.quantile(norms.cpu().numpy(), (0.5, 0.99)))
    return {
        "mean": norms.mean(),
        "median": median,
        "p99": p99,
        "max": norms.max(),
        "outliers": far.double().mean().to(norms.dtype),
    }


def token_variance(x: Tensor) -> Tensor:
    """Return the variance over tokens, averaged over channels, (..., N, D) -> (...).

    It is mean_i ||x_i - mean_i x_i||^2 / D.
    """
    centered = x - x.mean(-2, keepdim=True)
    spread: Tensor = torch.linalg.vector_norm(centered, dim=(-2, -1))
    return spread.square() / (x.shape[-2] * x.shape[-1])


def register_cosine(registers: Tensor) -> Tensor:
    """Return the mean cosine between pairs of an image's registers, (..., n, D) -> (...).

    NaN for fewer than two registers or if one has norm zero.
    """
    count = registers.shape[-2]
    if count < 2:
        return registers.new_full(registers.shape[:-2], nan)
    unit = registers / torch.linalg.vector_norm(registers, dim=-1, keepdim=True)
    pairs: Tensor = (unit.sum(-2).square().sum(-1) - unit.square().sum((-2, -1))) / (count * (count - 1))
    return pairs

"""Norms and ranks of a head's values and of its update. Axis letters as in `view.py`.

With W the head's map into the residual stream (LayerScale folded in) and W = Q R: ||u_j|| = ||R v_j||, and the
update U = A u has the singular values of A v R^T. Everything here is d wide; nothing is D wide or N x N.
"""

from math import nan

import torch
from torch import Tensor

from sinkablate.diagnostics.activations import max_abs
from sinkablate.diagnostics.shares import divide, host_can_read, share

ROUNDS = 10
"""Each round raises a Gram matrix to its fourth power; the relative error of the eigenvalue is < log(d) / 4^10."""


def largest_eigenvalue(gram: Tensor) -> Tensor:
    """Return the largest eigenvalue of positive semi-definite matrices, (..., d, d) -> (...).

    It is computed as tr(G^n G) / tr(G^n) with n = 4^10. This needs batched matrix products only, which are faster than
    `eigvalsh` on a CPU and avoid the eigensolver of a GPU, which handles one matrix of the batch at a time. A zero
    matrix gives NaN.
    """
    power = _raised_on_host(gram) if host_can_read(gram) else _raised(gram)
    return (power * gram).sum((-2, -1)) / _trace(power)


def _raised(power: Tensor) -> Tensor:
    """Raise matrices (..., d, d) to the power 4^10, up to scale."""
    for _ in range(ROUNDS):
        power = _fourth(power)
    return power


def _raised_on_host(gram: Tensor) -> Tensor:
    """Raise matrices (..., d, d) to a power for which P = G^n / tr(G^n) has rank one, at most 4^10, up to scale.

    The rank is one if tr(P^2) = 1 up to rounding, and 1 - tr(P^2) bounds the error of the eigenvalue. This takes two or
    three rounds for the steep spectra of real heads. Zero matrices become NaN.
    """
    flat = gram.reshape(-1, *gram.shape[-2:])
    left = (_trace(flat) > 0).nonzero().squeeze(1)
    powers, power = torch.full_like(flat, nan), flat[left]
    for _ in range(ROUNDS):
        power = _fourth(power)
        powers[left] = power
        mixed = 1 - power.square().sum((-2, -1)) / _trace(power).square() > 16 * torch.finfo(power.dtype).eps
        left, power = left[mixed], power[mixed]
        if not len(left):
            break
    return powers.view_as(gram)


def _fourth(power: Tensor) -> Tensor:
    """Return the fourth power of matrices (..., d, d) divided by their trace."""
    square = power / _trace(power)[..., None, None]
    square = square @ square
    return square @ square


def stable_ranks(rows: Tensor, routed: Tensor | None = None) -> tuple[Tensor, ...]:
    """Return ||X||_F^2 / sigma_1(X)^2 of matrices, (..., N, d) -> (...), and then of their routed rows; NaN for X = 0.

    Rows are first scaled to a largest entry of one, because squares of tiny updates would underflow. Routed rows are
    scaled by themselves, because they can be much smaller than the others.

    Args:
        rows: X.
        routed: Which rows are routed, (..., N) bool.
    """
    grams = [_gram(rows)]
    if routed is not None:
        grams.append(_gram_of(rows, routed))
    gram = torch.stack(grams)
    return (_trace(gram) / largest_eigenvalue(gram)).unbind()


def _gram_of(rows: Tensor, chosen: Tensor) -> Tensor:
    """Return `_gram` of chosen rows, (..., N, d), (..., N) -> (..., d, d); a CPU leaves out matrices without any."""
    if not host_can_read(rows):
        return _gram(rows * chosen[..., None])
    gram = rows.new_zeros(*rows.shape[:-2], rows.shape[-1], rows.shape[-1])
    some = chosen.any(-1)
    gram[some] = _gram(rows[some] * chosen[some][..., None])
    return gram


def _gram(rows: Tensor) -> Tensor:
    """Return X^T X of matrices X whose largest entry is scaled to one, (..., N, d) -> (..., d, d); NaN for X = 0."""
    rows = rows / max_abs(rows)[..., None, None]
    return rows.mT @ rows


def over_others(norms: Tensor, sink: Tensor, num_tokens: int) -> tuple[Tensor, Tensor]:
    """Return the norm at the dominant column and the mean norm of the other token columns, (b, h) each.

    The others never include null and k/v-bias columns. The mean over no columns is NaN.

    Args:
        norms: Norm of every column's value, (b, h, M).
        sink: Dominant column, (b, h).
        num_tokens: N; later columns are extra ones.
    """
    at = sink[..., None]
    others = norms.scatter(-1, at, 0)[..., :num_tokens].sum(-1)
    count = num_tokens - (sink < num_tokens).to(norms.dtype)
    return norms.gather(-1, at).squeeze(-1), divide(others, count)


def value_ratio(norms: Tensor, sink: Tensor, num_tokens: int) -> Tensor:
    """Return ||x_s|| / mean_{j != s} ||x_j|| over token columns, (b, h); arguments as for `over_others`."""
    return divide(*over_others(norms, sink, num_tokens))


def update_quantities(
    projected: Tensor, routed: Tensor, *, value_norm: Tensor, residual_norm: Tensor, quiet_max: float
) -> dict[str, Tensor]:
    """Return ranks and sizes of one update, each (b, h).

    Args:
        projected: O R^T (b, h, N, d), which has the row norms and singular values of U.
        routed: The routed queries, (b, h, N) bool.
        value_norm: mean_j ||u_j|| over token columns, (b, h).
        residual_norm: mean_i ||residual_i||, (b, h).
        quiet_max: A query is quiet when ||U_i|| is at most this times `value_norm`.
    """
    norms = torch.linalg.vector_norm(projected, dim=-1)
    mean_norm = norms.mean(-1)
    rank, routed_rank = stable_ranks(projected, routed)
    quiet = share(norms <= quiet_max * value_norm[..., None], norms)
    return {
        "stable_rank": rank,
        "routed_stable_rank": routed_rank,
        "rank1_energy": 1 / rank,
        "update_norm": mean_norm,
        "rel_update": divide(mean_norm, residual_norm),
        "quiet_frac": torch.where(value_norm > 0, quiet, nan),
    }


def correlation(x: Tensor, y: Tensor) -> Tensor:
    """Return the Pearson correlation along the last axis, (..., N) and (..., N) -> (...); NaN if either is constant."""
    varies = (x.amax(-1) > x.amin(-1)) & (y.amax(-1) > y.amin(-1))
    x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    norm = torch.linalg.vector_norm(x, dim=-1) * torch.linalg.vector_norm(y, dim=-1)
    return torch.where(varies, divide((x * y).sum(-1), norm), nan)


def _trace(x: Tensor) -> Tensor:
    """Return the trace of matrices, (..., d, d) -> (...)."""
    return x.diagonal(dim1=-2, dim2=-1).sum(-1)

"""Norms and ranks of a head's values and of its update. Axis letters as in `view.py`.

With W the head's map into the residual stream (LayerScale folded in) and W = Q R: ||u_j|| = ||R v_j||, and the
update U = A u has the singular values of A v R^T. Everything here is d wide; nothing is D wide or N x N.
"""

from math import nan

import torch
from torch import Tensor

from sinkablate.diagnostics.routing import Routing, divide, share

ROUNDS = 10
"""Each round raises a Gram matrix to its fourth power; the relative error of the eigenvalue is < log(d) / 4^10."""


def largest_eigenvalue(gram: Tensor) -> Tensor:
    """Return the largest eigenvalue of positive semi-definite matrices, (..., d, d) -> (...).

    It is computed as tr(G^n G) / tr(G^n) with n up to 4^10. This needs batched matrix products only, which are faster
    than `eigvalsh` on a CPU and avoid the eigensolver of a GPU, which handles one matrix of the batch at a time. A
    matrix is done when P = G^n / tr(G^n) has rank one, that is, tr(P^2) = 1 up to rounding, because 1 - tr(P^2) bounds
    the error; this takes two or three rounds for the steep spectra of real heads, and all rounds if other eigenvalues
    nearly equal the largest. A zero matrix gives NaN.
    """
    shape = gram.shape[:-2]
    power = gram = gram.reshape(-1, *gram.shape[-2:])
    largest = gram.new_zeros(len(gram))
    active = torch.arange(len(gram), device=gram.device)
    for _ in range(ROUNDS):
        power = power / _trace(power)[..., None, None]
        power = power @ power
        power = power @ power
        trace = _trace(power)
        largest[active] = (power * gram).sum((-2, -1)) / trace
        mixed = 1 - power.square().sum((-2, -1)) / trace.square() > 16 * torch.finfo(gram.dtype).eps
        if not mixed.any():
            break
        if not mixed.all():
            active, power, gram = active[mixed], power[mixed], gram[mixed]
    return largest.view(shape)


def stable_rank(rows: Tensor) -> Tensor:
    """Return ||X||_F^2 / sigma_1(X)^2 of matrices, (..., N, d) -> (...); NaN for X = 0.

    Rows are first scaled to a largest entry of one, because squares of tiny updates would underflow.
    """
    rows = rows / rows.abs().amax((-2, -1), keepdim=True)
    gram = rows.mT @ rows
    return _trace(gram) / largest_eigenvalue(gram)


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
    projected: Tensor, routing: Routing, *, value_norm: Tensor, residual_norm: Tensor, quiet_max: float
) -> dict[str, Tensor]:
    """Return ranks and sizes of one update, each (b, h).

    Args:
        projected: O R^T (b, h, N, d), which has the row norms and singular values of U.
        routing: The routing, which says which queries are routed.
        value_norm: mean_j ||u_j|| over token columns, (b, h).
        residual_norm: mean_i ||residual_i||, (b, 1).
        quiet_max: A query is quiet when ||U_i|| is at most this times `value_norm`.
    """
    norms = torch.linalg.vector_norm(projected, dim=-1)
    mean_norm = norms.mean(-1)
    rank = stable_rank(projected)
    quiet = share(norms <= quiet_max * value_norm[..., None], norms)
    return {
        "stable_rank": rank,
        "routed_stable_rank": _routed_rank(projected, routing.routed),
        "rank1_energy": 1 / rank,
        "update_norm": mean_norm,
        "rel_update": divide(mean_norm, residual_norm),
        "quiet_frac": torch.where(value_norm > 0, quiet, nan),
    }


def _routed_rank(projected: Tensor, routed: Tensor) -> Tensor:
    """Return the stable rank of the routed rows, (b, h); NaN, without computation, if there are none."""
    rank = projected.new_full(projected.shape[:2], nan)
    defined = routed.any(-1)
    rank[defined] = stable_rank(projected[defined] * routed[defined][..., None])
    return rank


def correlation(x: Tensor, y: Tensor) -> Tensor:
    """Return the Pearson correlation along the last axis, (..., N) and (..., N) -> (...); NaN if either is constant."""
    varies = (x.amax(-1) > x.amin(-1)) & (y.amax(-1) > y.amin(-1))
    x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    norm = torch.linalg.vector_norm(x, dim=-1) * torch.linalg.vector_norm(y, dim=-1)
    return torch.where(varies, divide((x * y).sum(-1), norm), nan)


def _trace(x: Tensor) -> Tensor:
    """Return the trace of matrices, (..., d, d) -> (...)."""
    return x.diagonal(dim1=-2, dim2=-1).sum(-1)

"""Query-key geometry: how strongly a head's weights alone favor one direction of attention."""

import torch
from torch import Tensor, nn

from sinkablate.vit.anatomy import block_parts
from sinkablate.vit.queries import query_key_maps


def query_key_spectrum(query: Tensor, key: Tensor) -> Tensor:
    """Return the singular values of W_Q^T W_K of every head, largest first, (H, d, D), (H, d, D) -> (H, d).

    The D x D product has rank d at most: with W_Q^T = Q_1 R_1 and W_K^T = Q_2 R_2 its singular values are those of
    R_1 R_2^T, a d x d problem. Computed in float64.
    """
    r1, r2 = (torch.linalg.qr(w.double().mT, mode="r").R for w in (query, key))
    values: Tensor = torch.linalg.svdvals(r1 @ r2.mT)
    return values


def query_key_directions(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Return the singular directions of W_Q^T W_K on the sides of query and key, by descending singular value.

    (H, d, D), (H, d, D) -> (H, D, d), (H, D, d) in float64, from the factors of `query_key_spectrum`.
    """
    (q1, r1), (q2, r2) = (torch.linalg.qr(w.double().mT) for w in (query, key))
    left, _, right = torch.linalg.svd(r1 @ r2.mT)
    return q1 @ left, q2 @ right.mT


def spectral_spikes(model: nn.Module, blocks: list[int]) -> tuple[Tensor, Tensor]:
    """Return the largest singular value of each head's query-key map, and its ratio to the mean, (L, H) float64 each.

    The gain of the norm before the maps is folded in. NaN if logits are not a bilinear form of the normed tokens
    (query-key norms, rotary positions).
    """
    largest, spike = [], []
    for index in blocks:
        parts = block_parts(model, index)
        maps = query_key_maps(model, parts)
        if maps is None:
            missing = torch.full((parts.num_heads,), torch.nan, dtype=torch.float64)
            largest.append(missing)
            spike.append(missing)
            continue
        values = query_key_spectrum(*maps).cpu()
        largest.append(values[:, 0])
        spike.append(values[:, 0] / values.mean(-1))
    return torch.stack(largest), torch.stack(spike)

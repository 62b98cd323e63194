"""Sums over the N x N weights of a softmax, in one pass that normalizes no row. Axis letters as in `view.py`.

With S the logits, m_i = max_j S_ij and z_i = sum_j exp(S_ij - m_i), the weights are A_ij = exp(S_ij - m_i) / z_i.
"""

from typing import Any

import torch
from torch import Tensor

from sinkablate.diagnostics.chunks import Chunk, chunks
from sinkablate.diagnostics.columns import at_columns, columns_to_read
from sinkablate.diagnostics.view import BlockView
from sinkablate.diagnostics.weight_sums import WeightSums, mean_openness

SAME = 2
"""Logits of a row within this number of relative roundings of the largest count as the largest."""
OVER_COLUMNS = ("received", "opened", "index")
"""Sums that have one value per column; those of other rows are added to them."""


def softmax_sums(view: BlockView, group: int, budget: int | None) -> WeightSums:
    """Sum the weights of a block, in chunks of whole matrices, or of rows of a single image if a matrix is too large.

    Args:
        view: The block.
        group: Number of strongest columns.
        budget: As for `chunks`.
    """
    k = view.k.contiguous()
    sums: dict[str, Any] = {}
    for part in chunks(view.q, k, budget):
        _put(sums, _sums_of(view, k, group, part), part, view.q.shape[:3])
    received, total, gate = sums["received"], sums["total"], view.gate
    if "index" not in sums:
        sums["index"] = columns_to_read(received, view, group)
        sums["event"] = _weights_again(view, k, sums["index"], sums["highest"]).div_(total[..., None])
    opened = sums.get("opened")
    return WeightSums(
        received=received,
        index=sums["index"],
        event=sums["event"],
        entropy=(total.log() - sums["inner"] / total).clamp_min(0),
        output=sums["output"] if view.output is None else view.output,
        raw_output=sums.get("raw_output"),
        openness=None if opened is None or gate is None else mean_openness(opened, received, gate),
    )


def _sums_of(view: BlockView, k: Tensor, group: int, part: Chunk) -> dict[str, Tensor]:
    """Return the sums of one chunk.

    They are m and z as `highest` and `total`; sum_j exp(S_ij - m_i) (S_ij - m_i) as `inner`, so that the entropy of a
    row is log z - inner / z, of which both terms approach zero for a peaked row; and sum_i A_ij g_i as `opened`.
    """
    assert view.logits is not None
    images, heads, rows = part
    s = view.logits(view.q[part], k[images, heads], images, heads, rows)
    highest = s.amax(-1, keepdim=True)
    a = s.sub_(highest).exp()
    total = a.sum(-1)
    share = total.reciprocal()[..., None]
    sums = {
        "highest": highest.squeeze(-1),
        "total": total,
        "inner": s.mul_(a).sum(-1),
        "received": (share.mT @ a).squeeze(-2),
    }
    if view.output is None:
        sums["output"] = (a @ view.v[images, heads]).mul_(share)
    if view.raw_v is not None:
        sums["raw_output"] = (a @ view.raw_v[images, heads]).mul_(share)
    if view.gate is not None and not view.gates_values:
        sums["opened"] = a.mT @ (view.gate[part] * share)
    if a.shape[2] == view.q.shape[2]:
        sums["index"] = columns_to_read(sums["received"], view, group)
        sums["event"] = at_columns(a, sums["index"]).mul_(share)
    return sums


def _put(sums: dict[str, Any], chunk: dict[str, Tensor], part: Chunk, shape: torch.Size) -> None:
    """Add the sums of a chunk to those of the block, (B, H, M, ...) or (B, H, N, ...); a single chunk is not copied."""
    if chunk["total"].shape == shape:
        sums.update(chunk)
        return
    for name, value in chunk.items():
        whole = shape[:2] if name in OVER_COLUMNS else shape
        if name not in sums:
            sums[name] = value.new_zeros(*whole, *value.shape[len(whole) :])
        sums[name][part[: len(whole)]] += value


def _weights_again(view: BlockView, k: Tensor, index: Tensor, highest: Tensor) -> Tensor:
    """Return exp(S_ij - m_i) at some columns, (B, H, N, c), from logits that are computed a second time.

    Products of other shapes round differently, so the largest logit of a row is recognized by its distance.

    Args:
        view: The block.
        k: Its keys, contiguous.
        index: The columns, (B, H, c).
        highest: m, (B, H, N).
    """
    assert view.logits is not None
    below = view.logits.at(view.q, k, index).sub_(highest[..., None])
    rounding = SAME * torch.finfo(below.dtype).eps * highest.abs()
    return below.where(below.abs() > rounding[..., None], 0).exp_()

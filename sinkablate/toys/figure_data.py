"""What the figures of the toys show, as tidy tables: norms of values, spectra of weights and updates, their directions.

Axis letters: B sequences, N tokens, H heads, d head width, D width.
"""

import polars as pl
import torch
from torch import Tensor, nn

from sinkablate.diagnostics.geometry import query_key_directions, query_key_spectrum
from sinkablate.diagnostics.head_factor import head_factor
from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.diagnostics.shares import first_largest
from sinkablate.diagnostics.tap import Tap
from sinkablate.diagnostics.view import BlockView
from sinkablate.errors import UserError
from sinkablate.vit.anatomy import block_parts, blocks_of
from sinkablate.vit.queries import query_key_maps


class _Views:
    """A consumer of the tap that keeps the attention of every block."""

    def __init__(self) -> None:
        self.views: list[BlockView] = []

    def attention(self, view: BlockView) -> None:
        self.views.append(view)

    def output(self, index: int, x: Tensor) -> None:
        """Ignore the output of a block."""


def views_of(model: nn.Module, tokens: Tensor) -> list[BlockView]:
    """Return the attention of every block on sequences (B, N, D)."""
    kept = _Views()
    with torch.no_grad(), measurement_mode(model), Tap(model, kept) as tap:
        tap.run(tokens)
    return kept.views


def value_norms(view: BlockView, head: int = 0) -> pl.DataFrame:
    """Return ||u_j||, what each token's value can write, with the sink of each sequence marked.

    Returns:
        One row per sequence and token: `block`, `sequence`, `column`, `sink` (whether it is the dominant column of the
        sequence), `norm`.
    """
    tokens = view.layout.num_tokens
    norms = torch.linalg.vector_norm(view.v[:, head, :tokens] @ view.out_map[head].mT, dim=-1)
    dominant = first_largest(view.weights()[:, head, :, :tokens].mean(1))
    batch = len(norms)
    column = torch.arange(tokens).expand(batch, tokens)
    return pl.DataFrame(
        {
            "block": view.index,
            "sequence": torch.arange(batch)[:, None].expand(batch, tokens).flatten().numpy(),
            "column": column.flatten().numpy(),
            "sink": (column == dominant[:, None].cpu()).flatten().numpy(),
            "norm": norms.flatten().cpu().double().numpy(),
        }
    )


def query_key_values(model: nn.Module) -> pl.DataFrame:
    """Return the singular values of W_Q^T W_K: `block`, `head`, `index` from 1, `value`.

    The gain of the norm before the maps is folded in.
    """
    values = [query_key_spectrum(*_maps(model, block)) for block in range(len(blocks_of(model)))]
    return _by_index(torch.stack(values))


def alignments(model: nn.Module, direction: Tensor) -> pl.DataFrame:
    """Return |cos| between a unit vector (D,) and every singular direction of W_Q^T W_K.

    Returns:
        `block`, `head`, `index` from 1 (the first belongs to the largest singular value), and `query` and `key`, the
        values on both sides. Two random directions have the mean sqrt(2 / (pi D)).
    """
    sides = [query_key_directions(*_maps(model, block)) for block in range(len(blocks_of(model)))]
    unit = direction.to(sides[0][0])
    query, key = (torch.stack([(pair[side].mT @ unit).abs() for pair in sides]) for side in (0, 1))
    return _by_index(query).rename({"value": "query"}).with_columns(_by_index(key)["value"].alias("key"))


def update_values(view: BlockView, head: int = 0) -> pl.DataFrame:
    """Return the singular values of the update of one head, relative to the largest, as quantiles over sequences.

    Returns:
        One row per singular value: `block`, `index` from 1, `median`, `low` and `high` (the 10th and 90th percentile).
    """
    heads = view.weights()[:, head] @ view.v[:, head]
    values = torch.linalg.svdvals((heads @ head_factor(view.out_map)[head].mT).double())
    low, median, high = torch.quantile(values / values[:, :1], torch.tensor([0.1, 0.5, 0.9]).to(values), dim=0)
    return pl.DataFrame(
        {
            "block": view.index,
            "index": range(1, values.shape[1] + 1),
            "median": median.cpu().numpy(),
            "low": low.cpu().numpy(),
            "high": high.cpu().numpy(),
        }
    )


def _maps(model: nn.Module, block: int) -> tuple[Tensor, Tensor]:
    """Return the query and key maps of a block, (H, d, D) each."""
    maps = query_key_maps(model, block_parts(model, block))
    if maps is None:
        raise UserError(f"{type(model).__name__}: the logits of block {block} are not a bilinear form of its tokens")
    return maps


def _by_index(values: Tensor) -> pl.DataFrame:
    """Turn numbers (L, H, d) into rows `block`, `head`, `index` from 1, `value`."""
    blocks, heads, index = torch.meshgrid(*(torch.arange(n) for n in values.shape), indexing="ij")
    axes = {"block": blocks, "head": heads, "index": index + 1}
    return pl.DataFrame(
        {name: axis.flatten().numpy() for name, axis in axes.items()} | {"value": values.flatten().cpu().numpy()}
    )

"""Block views with known tensors."""

from typing import Any

import torch
from torch import Tensor

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.heads import measure
from sinkablate.diagnostics.view import BlockView, Logits
from sinkablate.vit.tokens import TokenLayout, TokenType

T = ThresholdConfig()
KINDS = (
    "softmax",
    "null",
    "kv_bias",
    "clipped",
    "relu",
    "signed",
    "headwise",
    "elementwise",
    "value_headwise",
    "value_elementwise",
)
NULL, KV_BIAS = (TokenType.NULL,), (TokenType.KV_BIAS,)


def view_of(
    weights: Tensor,
    v: Tensor,
    *,
    registers: int = 0,
    extra: tuple[TokenType, ...] = (),
    out_map: Tensor | None = None,
    residual: Tensor | None = None,
    **fields: Any,
) -> BlockView:
    """A view with given attention weights (B, H, N, M); W defaults to the identity (D = d), the residual to ones."""
    batch, heads, n, m = weights.shape
    d = v.shape[-1]
    return BlockView(
        index=0,
        layout=TokenLayout(1, registers, n - 1 - registers),
        extra=extra,
        q=v.new_zeros(batch, heads, n, d),
        k=v.new_zeros(batch, heads, m, d),
        v=v,
        weigh=lambda _q, _k, images, heads: weights[images, heads],
        out_map=torch.eye(d, dtype=v.dtype).expand(heads, d, d) if out_map is None else out_map,
        residual=v.new_ones(batch, n, d) if residual is None else residual,
        **fields,
    )


def random_view(
    kind: str,
    *,
    seed: int = 0,
    batch: int = 3,
    heads: int = 4,
    n: int = 17,
    d: int = 6,
    dtype: torch.dtype = torch.float64,
    registers: int = 2,
) -> BlockView:
    """Random tensors of one mechanism; the logits favor one column, increasingly from the first head to the last."""
    g = torch.Generator().manual_seed(seed)
    width = heads * d
    m = n + (kind in ("null", "kv_bias"))

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    logits = draw(batch, heads, n, m)
    favored = torch.randint(m, (batch, heads, 1, 1), generator=g).expand(batch, heads, n, 1)
    favor = draw(batch, heads, n, 1) + torch.linspace(0, 7, heads, dtype=torch.float64).view(-1, 1, 1)
    logits = logits.scatter_add(-1, favored, favor)
    v = draw(batch, heads, m, d) * draw(batch, heads, m, 1).exp()
    fields: dict[str, Any] = {}
    weights = logits.softmax(-1)
    if kind == "null":
        v[..., -1, :] = 0
        fields |= {"extra": NULL, "takes_null": True}
    elif kind == "kv_bias":
        fields |= {"extra": KV_BIAS}
    elif kind == "clipped":
        weights = ((1 + 0.9 / n) * weights - 0.9 / n).clamp(0, 1)
        fields |= {"takes_null": True}
    elif kind in ("relu", "signed"):
        weights = (logits - 1.5).relu() / n if kind == "relu" else logits**3 / n**0.5
        weights[:, :, 3] = 0
        fields |= {"rows_sum_to_one": False, "rows_at_most_one": False}
    elif kind not in ("softmax", "null", "kv_bias"):
        gate = draw(batch, heads, n, 1 if kind.endswith("headwise") else d).sigmoid()
        fields |= {"gate": gate.to(dtype)}
        if kind.startswith("value"):
            fields |= {"gates_values": True, "raw_v": v.to(dtype)}
            v = v * gate
    if kind not in ("clipped", "relu", "signed"):
        s = logits.to(dtype)
        fields |= {"logits": Logits(1.0, s)}
    return view_of(
        weights.to(dtype),
        v.to(dtype),
        registers=registers,
        out_map=draw(heads, width, d).to(dtype),
        residual=draw(batch, n, width).to(dtype),
        **fields,
    )


def first_head(view: BlockView) -> dict[str, float]:
    """The quantities of the first image and head."""
    return {name: float(x[0, 0]) for name, x in measure(view, T).heads.items()}


def sink_weights(n: int, a: float, s: int = 0) -> Tensor:
    """Weights (1, 1, n, n) in which every query gives a to column s and spreads the rest evenly."""
    weights = torch.full((n, n), (1 - a) / (n - 1), dtype=torch.float64)
    weights[:, s] = a
    return weights[None, None]


def values(n: int, d: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(1, 1, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

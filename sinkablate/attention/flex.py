"""Attention with FlexAttention, whose memory is linear in the number of tokens, for scores and sinks without softmax.

FlexAttention is a prototype of PyTorch, so it is imported when it is used first. Nothing that is learned enters a
`score_mod`: gradients of captured tensors are summed with atomic additions, which differ from run to run, and a sink
in a `score_mod` gets a wrong gradient. Sinks are computed from the log-sum-exp instead.

Axis letters: B images, N tokens, H heads, d head width.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sinkablate.attention.exponential import Exponential

AVAILABLE = torch.__version__ >= "2.9"  # a TorchVersion, which compares version numbers
"""Whether FlexAttention of this version of PyTorch returns a log-sum-exp with a gradient (`AuxRequest`)."""
MIN_TOKENS = 512
"""Number of tokens from which `kernel: auto` uses FlexAttention. The weights are then at least eight times as large as
q, k or v of width 64, and at most a fifth of the kernel's tiles of 128 tokens is empty. Not measured on a GPU yet."""


@cache
def _compiled() -> Callable[..., Any]:
    """Return FlexAttention compiled by itself, for models that are not compiled."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


def softmax_with_lse(
    q: Tensor, k: Tensor, v: Tensor, scale: float, score_mod: Callable[..., Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Return softmax(g(s)) V (B, H, N, d) and the log-sum-exp of g(s) over each row (B, H, N, 1), where s = scale q·k.

    Args:
        q: Queries (B, H, N, d).
        k: Keys (B, H, N, d).
        v: Values (B, H, N, d).
        scale: Factor of the logits.
        score_mod: The function g, called with s and the indices of image, head, query and key; None is the identity.
    """
    from torch.nn.attention.flex_attention import AuxRequest, flex_attention

    attend: Any = flex_attention if torch.compiler.is_compiling() or not q.is_cuda else _compiled()
    q, k = q.to(v.dtype), k.to(v.dtype)  # under autocast, norms of q and k return float32
    out, aux = attend(q, k, v, score_mod=score_mod, scale=scale, return_aux=AuxRequest(lse=True))
    return out, aux.lse[..., None]


def attend_with_sink(q: Tensor, k: Tensor, v: Tensor, scale: float, logit: Tensor | None) -> Tensor:
    """Return softmax attention with a sink in the denominator, out · sigma(LSE - c), (B, H, N, d).

    Args:
        q: Queries (B, H, N, d).
        k: Keys (B, H, N, d).
        v: Values (B, H, N, d).
        scale: Factor of the logits.
        logit: c (H,); None is zero.
    """
    out, lse = softmax_with_lse(q, k, v, scale)
    rest = lse if logit is None else lse - logit[:, None, None]
    return (out * rest.sigmoid()).to(v.dtype)


def attend_with_exponential(
    q: Tensor, k: Tensor, v: Tensor, scale: float, form: Exponential, bias: Tensor | None = None
) -> Tensor:
    """Return the weighted values A V (B, H, N, d) of a score A that is a multiple of exponentials.

    Args:
        q: Queries (B, H, N, d).
        k: Keys (B, H, N, d).
        v: Values (B, H, N, d).
        scale: Factor of the logits.
        form: The score.
        bias: A learned offset of the logits per head (H,).
    """
    heads, n = k.shape[1:3]
    exact = torch.float64 if q.dtype == torch.float64 else torch.float32
    log_n = torch.full((heads,), n, dtype=exact, device=q.device).log()
    if bias is not None:
        q, k = with_logits(q, k, bias[:, None, None].expand(-1, n, 1), scale)

    def score_mod(s: Tensor, _image: Tensor, head: Tensor, _query: Tensor, _key: Tensor) -> Tensor:
        return form.log(s - log_n[head] if form.minus_log_n else s)

    def negative(s: Tensor, _image: Tensor, _head: Tensor, _query: Tensor, _key: Tensor) -> Tensor:
        return form.log(-s)

    def part(function: Callable[..., Tensor]) -> Tensor:
        out, lse = softmax_with_lse(q, k, v, scale, function)
        return out * (lse - form.alpha * log_n[:, None, None]).exp()

    return (part(score_mod) - part(negative) if form.odd else part(score_mod)).to(v.dtype)


def with_logits(q: Tensor, k: Tensor, logits: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Add logits to the columns of keys in one more head coordinate: 1 in every query, logit / scale in a key.

    Kernels need no mask for it, and gradients of the logits are sums over keys in a fixed order. The head width becomes
    a multiple of 8, which flash kernels require.

    Args:
        q: Queries (B, H, N, d).
        k: Keys (B, H, M, d).
        logits: (H, M, 1).
        scale: Factor of the logits.
    """
    extra = -q.shape[-1] % 8 or 8
    q = torch.cat((q, F.pad(torch.ones_like(q[..., :1]), (0, extra - 1))), dim=-1)
    column = F.pad((logits / scale).to(k.dtype), (0, extra - 1)).expand(k.shape[0], -1, -1, -1)
    return q, torch.cat((k, column), dim=-1)

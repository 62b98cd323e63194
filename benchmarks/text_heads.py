"""Compare measuring causal and grouped heads of a language model with measuring heads of a ViT of the same size.

    python -m benchmarks.text_heads [--tokens 257] [--batch 4] [--rounds 50]

All sides have the same queries, and after repetition the same keys and values, so they differ only in what their kind
of attention adds. Each side builds the view of a block from the arguments of a fused attention call and measures it.
"""

import argparse
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.interleave import interleave, report
from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.capture import Capture, block_view, per_query_head
from sinkablate.diagnostics.head_factor import head_factor
from sinkablate.diagnostics.heads import measure
from sinkablate.vit.anatomy import BlockParts
from sinkablate.vit.tokens import TextTokenType, TokenLayout

HEADS, GROUPS, WIDTH = 12, 4, 64
TARGET = 1.1


def side(tokens: int, batch: int, *, causal: bool, grouped: bool, text: bool = True) -> Callable[[], object]:
    """Return a function that measures one block with a kind of attention.

    Args:
        tokens: Length of the sequence.
        batch: Number of sequences.
        causal: Let every token attend only to itself and the tokens before it.
        grouped: Let every three query heads share one head of keys and values.
        text: Store the token types of texts instead of the layout of a ViT.
    """
    generator = torch.Generator().manual_seed(0)

    def projected(heads: int) -> torch.Tensor:
        """Return (B, H, N, d) with the strides of a projection that is split into heads."""
        return torch.randn(batch, tokens, heads, WIDTH, generator=generator).transpose(1, 2)

    q, k, v = projected(HEADS) * 3, projected(GROUPS), projected(GROUPS)
    if not grouped:
        k, v = (per_query_head(x, HEADS).transpose(1, 2).contiguous().transpose(1, 2) for x in (k, v))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)
    call: dict[str, Any] = {"q": q, "k": k, "v": v, "is_causal": causal, "out": out}
    proj = nn.Linear(HEADS * WIDTH, HEADS * WIDTH, bias=False)
    parts = SimpleNamespace(
        attn=nn.Identity(), num_heads=HEADS, out_weight=proj.weight, gamma=None
    )  # of the parts of a block, the view reads only these
    layout = TokenLayout(0, 0, tokens) if text else TokenLayout(1, 0, tokens - 1)
    types = torch.full((batch, tokens), TextTokenType.WORD) if text else None
    capture = Capture(torch.randn(batch, tokens, HEADS * WIDTH, generator=generator), calls=[call])
    thresholds = ThresholdConfig()
    factor = head_factor(block_view(0, cast(BlockParts, parts), capture, layout, types).out_map)
    return lambda: measure(block_view(0, cast(BlockParts, parts), capture, layout, types), thresholds, factor=factor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 257])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=50)
    args = parser.parse_args()
    for tokens in args.tokens:
        sides = {
            "ViT": side(tokens, args.batch, causal=False, grouped=False, text=False),
            "text": side(tokens, args.batch, causal=False, grouped=False),
            "causal": side(tokens, args.batch, causal=True, grouped=False),
            "grouped": side(tokens, args.batch, causal=False, grouped=True),
            "causal and grouped": side(tokens, args.batch, causal=True, grouped=True),
        }
        times = interleave(sides, args.rounds, warmup=3)
        title = (
            f"{HEADS} heads of width {WIDTH}, {tokens} tokens, batch {args.batch}, {torch.get_num_threads()} threads"
        )
        report(title, times, "ViT", dict.fromkeys(list(sides)[1:], TARGET))


if __name__ == "__main__":
    main()

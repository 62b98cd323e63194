"""The small transformer of the toy tasks: one head a block, no biases in q, k, v and o, positions in the first norm.

Axis letters: B sequences, N tokens, D width (also the head's). It looks like a timm ViT to the tap: `blocks` of
`norm1`, `attn`, `norm2`, and `forward_features`; its registers, the null token among them, are `reg_token`.
"""

import torch
from timm.layers import Attention as TimmAttention
from timm.layers import Mlp
from torch import Tensor, nn

from sinkablate.attention.module import Attention
from sinkablate.attention.pathway import GlobalPathway
from sinkablate.config import ToyConfig
from sinkablate.vit.init import generator, reset_mechanisms


class ToyBlock(nn.Module):
    """x + attn(norm1(x + where)) [+ pathway], then x + mlp(norm2(x)) where there is an MLP."""

    def __init__(self, config: ToyConfig, *, mlp: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width)
        self.attn = Attention.from_timm(
            TimmAttention(config.width, num_heads=1, qkv_bias=False, proj_bias=False), config.attention
        )
        self.pathway = GlobalPathway(config.pathway, config.width) if config.pathway.kind == "global" else None
        self.norm2 = nn.LayerNorm(config.width) if mlp else nn.Identity()
        self.mlp = Mlp(config.width, 4 * config.width) if mlp else None

    def forward(self, x: Tensor, where: Tensor | float = 0.0) -> Tensor:
        """Residual stream (B, N, D) to residual stream; `where` (N, D) is seen by the attention alone."""
        normed = self.norm1(x + where)
        update = self.attn(normed)
        x = x + (update if self.pathway is None else update + self.pathway(normed))
        normed = self.norm2(x)  # without an MLP this is the stream itself, which the tap reads here
        return normed if self.mlp is None else x + self.mlp(normed)


class ToyTransformer(nn.Module):
    """Blocks over tokens that are drawn, not embedded.

    Prefix tokens, `config.prefix` of them, have input zero and a learned vector that only the first norm sees: the
    null token of the NOP task, and registers.

    Args:
        config: The task and the mechanism.
        seed: Of the parameters, each drawn from (seed, its name), so that mechanisms share what they have in common.
    """

    def __init__(self, config: ToyConfig, seed: int) -> None:
        super().__init__()
        self.num_prefix_tokens = config.prefix
        self.pos_embed = nn.Parameter(torch.zeros(config.drawn, config.width))
        self.reg_token = nn.Parameter(torch.zeros(1, config.prefix, config.width)) if config.prefix else None
        self.blocks = nn.ModuleList(ToyBlock(config, mlp=config.task == "broadcast") for _ in range(config.depth))
        self._draw(seed)

    @torch.no_grad()
    def _draw(self, seed: int) -> None:
        """Draw every parameter from (seed, its name).

        Matrices keep torch's scale, 1/sqrt(fan in); vectors that are added to tokens have a standard deviation of .02.
        """
        for name, p in self.named_parameters():
            leaf, g = name.rpartition(".")[2], generator(seed, name)
            if leaf in ("pos_embed", "reg_token"):
                p.normal_(std=0.02, generator=g)
            elif leaf == "weight" and p.ndim == 2:
                p.uniform_(-(p.shape[1] ** -0.5), p.shape[1] ** -0.5, generator=g)
            else:
                p.fill_(1.0 if leaf == "weight" else 0.0)
        reset_mechanisms(self, seed, nn.init.normal_)

    def forward_features(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, D), without the prefix, to the stream after the last block (B, prefix + N, D)."""
        x: Tensor = tokens
        where: Tensor = self.pos_embed
        if self.reg_token is not None:
            prefix = self.reg_token.expand(len(tokens), -1, -1)
            x = torch.cat((torch.zeros_like(prefix), tokens), dim=1)
            where = torch.cat((self.reg_token[0], where))
        for index, block in enumerate(self.blocks):
            x = block(x, where if index == 0 else 0.0)
        return x

    def forward(self, tokens: Tensor) -> Tensor:
        """Outputs of the tokens (B, N, D); those of the prefix are not part of any task."""
        out: Tensor = self.forward_features(tokens)
        return out[:, self.num_prefix_tokens :]


def build_toy(config: ToyConfig, seed: int) -> ToyTransformer:
    """The model, with the global random state left as it was."""
    with torch.random.fork_rng(devices=[]):
        return ToyTransformer(config, seed)

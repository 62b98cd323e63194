"""The small transformer of the toy tasks, with one or two heads per block and no biases in q, k, v and o.

Axis letters: B sequences, N tokens, D width, which is also the width of every head. Positions are added before the
first norm. For the tap, the model has the structure of a timm ViT: `blocks` with `norm1`, `attn` and `norm2`, and
`forward_features`. The null token and the registers are stored in `reg_token`.
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
    """A block: x + attn(norm1(x + positions)) [+ pathway], followed by x + mlp(norm2(x)) if there is an MLP."""

    def __init__(self, config: ToyConfig, *, mlp: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width)
        self.attn = Attention.from_timm(
            TimmAttention(config.width, config.heads, config.width, qkv_bias=False, proj_bias=False), config.attention
        )
        self.ls1 = nn.Identity()  # timm's name for LayerScale, which toys do not have
        self.pathway = GlobalPathway(config.pathway, config.width) if config.pathway.kind == "global" else None
        self.norm2 = nn.LayerNorm(config.width) if mlp else nn.Identity()
        self.mlp = Mlp(config.width, 4 * config.width) if mlp else None

    def forward(self, x: Tensor, positions: Tensor | float = 0.0) -> Tensor:
        """Map the residual stream (B, N, D) to the stream after the block; only attention reads `positions` (N, D)."""
        normed = self.norm1(x + positions)
        update = self.ls1(self.attn(normed))
        x = x + (update if self.pathway is None else update + self.pathway(normed))
        normed = self.norm2(x)  # without an MLP, norm2 is an Identity, at which the tap reads the stream
        return normed if self.mlp is None else x + self.mlp(normed)


class ToyTransformer(nn.Module):
    """A transformer whose input tokens are drawn rather than embedded.

    The first `config.prefix` tokens, which are the null token of the NOP task and registers, have input zero and a
    learned vector that is added before the first norm only.

    Args:
        config: The task and the mechanism.
        seed: Seed of the parameters, each drawn from (seed, its name), so that mechanisms share the values of
            common parameters.
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
        """Map tokens without the prefix (B, N, D) to the stream after the last block (B, prefix + N, D)."""
        x: Tensor = tokens
        positions: Tensor = self.pos_embed
        if self.reg_token is not None:
            prefix = self.reg_token.expand(len(tokens), -1, -1)
            x = torch.cat((torch.zeros_like(prefix), tokens), dim=1)
            positions = torch.cat((self.reg_token[0], positions))
        for index, block in enumerate(self.blocks):
            x = block(x, positions if index == 0 else 0.0)
        return x

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the outputs of the tokens (B, N, D), without those of the prefix, which no task uses."""
        out: Tensor = self.forward_features(tokens)
        return out[:, self.num_prefix_tokens :]


def build_toy(config: ToyConfig, seed: int) -> ToyTransformer:
    """Build the model without changing the global random state."""
    with torch.random.fork_rng(devices=[]):
        return ToyTransformer(config, seed)

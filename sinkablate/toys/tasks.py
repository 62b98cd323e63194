"""What the toy tasks ask: their fixed tensors, their targets, and which tokens must do nothing.

Axis letters: B sequences, N tokens, D width. Every draw comes from a generator of its own: task tensors from
2000 + seed, training batches from (1000 + seed, step), evaluation from 5000 + seed.
"""

from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from sinkablate.config import ToyConfig
from sinkablate.vit.init import generator

_TASK, _STREAM, _EVALUATION = 2000, 1000, 5000


@dataclass(frozen=True)
class ToyTask:
    """The task of one seed."""

    config: ToyConfig
    direction: Tensor
    """v (nop) or u (broadcast), unit length, mean zero, (D,)."""
    rotation: Tensor
    """R (D, D), orthogonal; broadcast only."""

    @classmethod
    def draw(cls, config: ToyConfig, seed: int) -> "ToyTask":
        """The task tensors of a seed, whatever the mechanism.

        The direction has no component along (1, ..., 1): the first norm subtracts each token's mean, so that a head
        could not see that part, and how well the task can be solved would hang on the seed.
        """
        g = torch.Generator().manual_seed(_TASK + seed)
        direction = torch.randn(config.width, generator=g)
        direction -= direction.mean()
        rotation, _ = torch.linalg.qr(torch.randn(config.width, config.width, generator=g))
        return cls(config, direction / direction.norm(), rotation)

    def rests(self, tokens: Tensor) -> Tensor:
        """m: the tokens whose head must write nothing, <x, v> <= Phi^-1(p_nop), (B, N) bool."""
        return tokens @ self.direction.to(tokens) <= NormalDist().inv_cdf(self.config.p_nop)

    def source(self, tokens: Tensor) -> Tensor:
        """j* = argmax_j <x_j, u>, (B,)."""
        return (tokens @ self.direction.to(tokens)).argmax(-1)

    def target(self, tokens: Tensor) -> Tensor:
        """What the outputs must be, (B, N, D).

        nop, supervise=output: x for tokens that rest, 0 for the others. nop, supervise=update: what the head must
        write, (1 - m) x + m gamma x. broadcast: x_i + alpha x_{j*} R.
        """
        if self.config.task == "broadcast":
            chosen = tokens[torch.arange(len(tokens), device=tokens.device), self.source(tokens)]
            return tokens + self.config.alpha * (chosen @ self.rotation.to(tokens))[:, None]
        rests = self.rests(tokens)[..., None]
        if self.config.supervise == "output":
            return torch.where(rests, tokens, 0.0)
        return torch.where(rests, self.config.gamma * tokens, tokens)

    def prediction(self, tokens: Tensor, outputs: Tensor) -> Tensor:
        """What is compared with the target: the outputs, or what was added to the tokens."""
        update = self.config.task == "nop" and self.config.supervise == "update"
        return outputs - tokens if update else outputs


def training_batch(config: ToyConfig, seed: int, step: int, size: int) -> Tensor:
    """The tokens (size, N, D) of one step, a function of (seed, step)."""
    return torch.randn(size, config.drawn, config.width, generator=generator(_STREAM + seed, f"batch {step}"))


def evaluation_tokens(config: ToyConfig, seed: int, size: int) -> Tensor:
    """The tokens (size, N, D) that every evaluation of a seed sees."""
    g = torch.Generator().manual_seed(_EVALUATION + seed)
    return torch.randn(size, config.drawn, config.width, generator=g)

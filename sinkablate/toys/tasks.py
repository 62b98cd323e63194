"""The toy tasks: their fixed tensors, their targets, and the tokens that must stay unchanged.

Axis letters: B sequences, N tokens, D width. Every draw has its own generator: task tensors use the seed
2000 + seed, training batches (1000 + seed, step), and the evaluation 5000 + seed.
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
    """The unit vector v (nop, mixed) or u (broadcast) with mean zero, (D,)."""
    rotation: Tensor
    """The orthogonal matrix R (D, D) of the broadcast and the mixed task."""
    source_direction: Tensor
    """The unit vector u with mean zero, (D,): a second one for mixed, `direction` for the other tasks."""

    @classmethod
    def draw(cls, config: ToyConfig, seed: int) -> "ToyTask":
        """Draw the task tensors of a seed, which are the same for every mechanism.

        A direction has no component along (1, ..., 1). The first norm subtracts each token's mean, so this component
        would be invisible to the head, and the smallest possible error would depend on the seed.
        """
        g = torch.Generator().manual_seed(_TASK + seed)
        direction = _centered(torch.randn(config.width, generator=g))
        rotation, _ = torch.linalg.qr(torch.randn(config.width, config.width, generator=g))
        second = _centered(torch.randn(config.width, generator=g))
        return cls(config, direction, rotation, second if config.task == "mixed" else direction)

    def rests(self, tokens: Tensor) -> Tensor:
        """Return the mask m (B, N) of tokens for which the head must write nothing: <x, v> <= Phi^-1(p_nop)."""
        return tokens @ self.direction.to(tokens) <= NormalDist().inv_cdf(self.config.p_nop)

    def source(self, tokens: Tensor) -> Tensor:
        """Return the index of the source token, j* = argmax_j <x_j, u>, (B,)."""
        return (tokens @ self.source_direction.to(tokens)).argmax(-1)

    def target(self, tokens: Tensor) -> Tensor:
        """Return the target of `prediction`, (B, N, D).

        For nop and supervise=output, it is x for tokens in m and 0 for the others. For nop and supervise=update, it is
        the update of the head, (1 - m) x + m gamma x. For broadcast, it is x_i + alpha x_{j*} R, and for mixed
        m_i x_i + alpha x_{j*} R.
        """
        if self.config.task == "broadcast":
            return tokens + self._message(tokens)
        rests = self.rests(tokens)[..., None]
        if self.config.task == "mixed":
            return torch.where(rests, tokens, 0.0) + self._message(tokens)
        if self.config.supervise == "output":
            return torch.where(rests, tokens, 0.0)
        return torch.where(rests, self.config.gamma * tokens, tokens)

    def _message(self, tokens: Tensor) -> Tensor:
        """Return alpha x_{j*} R, (B, 1, D)."""
        content = tokens[torch.arange(len(tokens), device=tokens.device), self.source(tokens)]
        return self.config.alpha * (content @ self.rotation.to(tokens))[:, None]

    def prediction(self, tokens: Tensor, outputs: Tensor) -> Tensor:
        """Return what is compared with the target: the outputs, or their difference from the tokens."""
        update = self.config.task == "nop" and self.config.supervise == "update"
        return outputs - tokens if update else outputs


def _centered(vector: Tensor) -> Tensor:
    """Return the unit vector along a vector (D,) without its mean."""
    vector = vector - vector.mean()
    return vector / vector.norm()


def training_batch(config: ToyConfig, seed: int, step: int, size: int) -> Tensor:
    """Draw the tokens (size, N, D) of a step, which depend on (seed, step) only."""
    return torch.randn(size, config.drawn, config.width, generator=generator(_STREAM + seed, f"batch {step}"))


def evaluation_tokens(config: ToyConfig, seed: int, size: int) -> Tensor:
    """Draw the tokens (size, N, D) of every evaluation with this seed."""
    g = torch.Generator().manual_seed(_EVALUATION + seed)
    return torch.randn(size, config.drawn, config.width, generator=g)

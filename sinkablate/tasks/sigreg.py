"""SIGReg (arXiv 2511.08544): the distance of embeddings from a standard normal distribution along random directions.

Axis letters: N embeddings, K their width, A directions, T points of the characteristic function.
"""

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_reduce  # type: ignore[attr-defined]

from sinkablate.vit.init import generator

POINTS, LAST = 17, 3.0
"""Number of points in [0, LAST] at which the characteristic functions are compared, and the last point."""


def quadrature(like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return t (T,), trapezoid weights doubled by symmetry (T,), and phi(t) = exp(-t^2 / 2) (T,)."""
    t = torch.linspace(0, LAST, POINTS, device=like.device, dtype=like.dtype)
    w = torch.full_like(t, 2 * LAST / (POINTS - 1))
    w[0] /= 2  # not w[[0, -1]]: a list of indices would be copied to the device
    w[-1] /= 2
    return t, w, torch.exp(-t.square() / 2)


def directions(seed: int, step: str, count: int, width: int) -> Tensor:
    """Draw random unit directions (K, A) that depend on the seed and the step only, so all ranks have the same ones."""
    normal = torch.randn(width, count, generator=generator(seed, f"sigreg {step}"))
    return normal / normal.norm(dim=0)


def sigreg(z: Tensor, a: Tensor, *, all_ranks: bool = False) -> Tensor:
    """Return N sum_t w_t phi(t) [(mean_n cos(t a.z_n) - phi(t))^2 + (mean_n sin(t a.z_n))^2], averaged over directions.

    The expected value is 1.0525 for independent standard normal embeddings and .40205 N for embeddings that are zero.

    Args:
        z: Embeddings (N, K) in fp32.
        a: Unit directions (K, A).
        all_ranks: Average over the embeddings of all processes; N is then their total number.
    """
    t, w, phi = quadrature(z)
    pinned = a.pin_memory() if z.is_cuda else a  # so that the host does not wait for the copy
    angles = (z @ pinned.to(z, non_blocking=True))[..., None] * t
    cos, sin, count = angles.cos().mean(0), angles.sin().mean(0), len(z)
    if all_ranks and distributed.is_available() and distributed.is_initialized():
        world = distributed.get_world_size()
        cos, sin = (all_reduce(x) / world for x in (cos, sin))
        count *= world
    distance = (cos - phi).square() + sin.square()
    return count * (distance * (w * phi)).sum(-1).mean()


def invariance(z: Tensor) -> Tensor:
    """Return mean((mean_v z - z)^2) of the embeddings of views (B, V, K), a scalar."""
    return (z.mean(1, keepdim=True) - z).square().mean()


def effective_rank(covariance: Tensor) -> Tensor:
    """Return the effective rank (Roy and Vetterli 2007) of a covariance (D, D).

    It is the exponential of the entropy of the singular values, divided by their sum.
    """
    sigma = torch.linalg.eigvalsh(covariance).clamp_min(0).sqrt()
    p = sigma / sigma.sum()
    return torch.exp(-torch.special.xlogy(p, p).sum())

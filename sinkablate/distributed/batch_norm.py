"""Batch norm over the batches of all processes, also on CPUs, which torch's SyncBatchNorm does not support."""

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce  # type: ignore[attr-defined]


class SyncBatchNorm1d(nn.BatchNorm1d):
    """`nn.BatchNorm1d` over the embeddings (N, D) of all processes, each of which must have the same number."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize embeddings (N, D); gradients flow through the mean and variance over all processes."""
        if not (self.training and distributed.is_available() and distributed.is_initialized()):
            return super().forward(x)
        world = distributed.get_world_size()
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = all_reduce(wide.mean(0)) / world
        centered = wide - mean
        variance = all_reduce(centered.square().mean(0)) / world
        self._track(mean.detach(), variance.detach(), len(x) * world)
        return (centered * torch.rsqrt(variance + self.eps) * self.weight + self.bias).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var), self.momentum)

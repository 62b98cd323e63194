"""Sharding a module's parameters across ranks with FSDP2, and gathering them in a copy for measurements."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

_TEMPLATE = "_unsharded_template"


def shard(module: nn.Module, mesh: DeviceMesh, units: Sequence[nn.Module] = ()) -> None:
    """Shard a module in place: each rank keeps a part of every parameter and gathers a unit while it runs.

    Args:
        module: The root module. Its forward pass must be run by calling the module.
        mesh: One-dimensional mesh of all ranks.
        units: Submodules whose parameters are gathered one at a time, such as the blocks of a transformer.
    """
    # in the dictionary, because a submodule would be registered and add parameters
    vars(module)[_TEMPLATE] = copy.deepcopy(module).to("meta")
    for unit in (*units, module):
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)


def full(tensor: Tensor) -> Tensor:
    """Return the full tensor. For a sharded tensor this is a collective: every rank must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, target: Tensor) -> Tensor:
    """Shard a tensor that every rank has in the same way as `target`."""
    if not isinstance(target, DTensor):
        return tensor
    return distribute_tensor(tensor.to(target.device), target.device_mesh, target.placements, src_data_rank=None)


@torch.no_grad()
def unshard(module: nn.Module) -> nn.Module:
    """Return the module, or an unsharded copy of a sharded module. This is a collective: every rank must call it."""
    template: nn.Module | None = vars(module).get(_TEMPLATE)
    if template is None:
        return module
    unsharded = copy.deepcopy(template)
    unsharded.load_state_dict({name: full(tensor) for name, tensor in module.state_dict().items()}, assign=True)
    return unsharded

"""Cutting a module's parameters over processes (FSDP2), and having them whole again where a copy is looked at."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

_TWIN = "_whole_twin"


def shard(module: nn.Module, mesh: DeviceMesh, units: Sequence[nn.Module] = ()) -> None:
    """Cut a module in place; each process keeps a part of every parameter, and gathers a unit while it runs.

    Args:
        module: The root: its forward pass must go through its call.
        mesh: One-dimensional, over the processes.
        units: Submodules that are gathered one at a time, the blocks of a transformer.
    """
    # in the dictionary and not as an attribute: a submodule would show among the parameters
    vars(module)[_TWIN] = copy.deepcopy(module).to("meta")
    for unit in (*units, module):
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)


def full(tensor: Tensor) -> Tensor:
    """All of a tensor; of one that is cut over processes, each of them must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, target: Tensor) -> Tensor:
    """A tensor that every process has, cut as `target` is."""
    if not isinstance(target, DTensor):
        return tensor
    return distribute_tensor(tensor.to(target.device), target.device_mesh, target.placements, src_data_rank=None)


@torch.no_grad()
def unshard(module: nn.Module) -> nn.Module:
    """The module, or of one that is cut over processes a plain copy with all its weights; each of them must ask."""
    twin: nn.Module | None = vars(module).get(_TWIN)
    if twin is None:
        return module
    twin = copy.deepcopy(twin)
    twin.load_state_dict({name: full(tensor) for name, tensor in module.state_dict().items()}, assign=True)
    return twin

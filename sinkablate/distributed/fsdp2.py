"""The strategy `fsdp2`: weights, gradients and optimizer state are sharded across ranks; checkpoints are not."""

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from lightning.pytorch.strategies.strategy import Strategy
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.optim import Optimizer

from sinkablate.distributed.sharding import full, like
from sinkablate.errors import UserError

NAME = "fsdp2"


class FullySharded(ModelParallelStrategy):
    """FSDP2 over all ranks; the task shards its modules in `configure_model`.

    A checkpoint is a single file with full tensors, as with other strategies, so a run can be resumed with any number
    of ranks and any strategy.
    """

    strategy_name = NAME

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether Lightning restores the optimizer state from the checkpoint it has loaded."""
        return True

    def setup_environment(self) -> None:
        """Set up one data-parallel group of all ranks."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Load the whole file on every rank."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load full tensors, of which each rank keeps its shard."""
        assert self.lightning_module is not None
        set_model_state_dict(
            self.lightning_module,
            checkpoint["state_dict"],
            options=StateDictOptions(full_state_dict=True, strict=strict),
        )

    @torch.no_grad()
    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the optimizer state with full tensors on rank 0, and an empty one on other ranks."""
        state = optimizer.state_dict()
        tensors = {
            number: {name: self._gathered(value) for name, value in values.items()}
            for number, values in state["state"].items()
        }
        return {**state, "state": tensors} if self.is_global_zero else {}

    def _gathered(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        gathered = full(value)  # a collective: every rank must call it
        return gathered.cpu() if self.is_global_zero else None

    @torch.no_grad()
    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load full tensors, of which each rank keeps its shard."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            numbers = [number for group in state["param_groups"] for number in group["params"]]
            targets = dict(zip(numbers, parameters, strict=True))
            parts = {
                number: {
                    name: like(value, targets[number]) if _is_as_large(value, targets[number]) else value
                    for name, value in values.items()
                }
                for number, values in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": parts})


def _is_as_large(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape


def require_shardable(trainer: L.Trainer, module: L.LightningModule) -> None:
    """Refuse the strategy for a task that does not shard its modules.

    Raises:
        UserError: The strategy is fsdp2 and the task has no `configure_model`.
    """
    if isinstance(trainer.strategy, FullySharded) and not is_overridden("configure_model", module):
        raise UserError(f"trainer.strategy={NAME}: {type(module).__name__} cannot be sharded across ranks; use ddp")


def register() -> None:
    """Register the strategy's name with Lightning."""
    StrategyRegistry.register(NAME, FullySharded, description="FSDP2 over all ranks", override=True)

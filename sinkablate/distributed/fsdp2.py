"""`--trainer.strategy fsdp2`: weights, gradients, optimizer cut over the processes, checkpoints as of one process."""

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
    """FSDP2 over all processes; the task cuts itself in `configure_model`.

    A checkpoint is one file with whole tensors, the same as any other strategy's: it goes on under any number of
    processes, with this strategy or without.
    """

    strategy_name = NAME

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """The optimizer's state comes from the checkpoint that Lightning has read."""
        return True

    def setup_environment(self) -> None:
        """One group of all processes."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """What the file holds, on every process."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Give each process its part."""
        assert self.lightning_module is not None
        set_model_state_dict(
            self.lightning_module,
            checkpoint["state_dict"],
            options=StateDictOptions(full_state_dict=True, strict=strict),
        )

    @torch.no_grad()
    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Whole tensors, numbered as the optimizer does; empty on all processes but the first."""
        state = optimizer.state_dict()
        tensors = {
            number: {name: self._kept(value) for name, value in values.items()}
            for number, values in state["state"].items()
        }
        return {**state, "state": tensors} if self.is_global_zero else {}

    def _kept(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        gathered = full(value)  # on every process: it is a joint operation
        return gathered.cpu() if self.is_global_zero else None

    @torch.no_grad()
    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Give each process its part."""
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


def require_cuttable(trainer: L.Trainer, module: L.LightningModule) -> None:
    """See that a task cuts itself where the strategy asks for it.

    Raises:
        UserError: It does not.
    """
    if isinstance(trainer.strategy, FullySharded) and not is_overridden("configure_model", module):
        raise UserError(f"trainer.strategy={NAME}: {type(module).__name__} cannot be cut over processes; use ddp")


def register() -> None:
    """Let Lightning know the name."""
    StrategyRegistry.register(NAME, FullySharded, description="FSDP2 over all processes", override=True)

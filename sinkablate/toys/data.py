"""Sequences of the toy tasks: new normal tokens at every step, identical for all mechanisms with the same seed."""

from collections.abc import Iterator

import lightning as L
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sinkablate.config import ToyConfig
from sinkablate.data.position import training_position
from sinkablate.data.probe import ProbeSet
from sinkablate.data.samplers import EpochBatches
from sinkablate.diagnostics.schedule import early_steps
from sinkablate.errors import UserError, require_at_least
from sinkablate.toys.tasks import evaluation_tokens, training_batch

Batch = tuple[Tensor]
"""Tokens (B, N, D)."""


class ToyData(L.LightningDataModule):
    """Draws the sequences of the model's toy task.

    Args:
        batch_size: Number of sequences per step.
        steps: Number of steps per epoch. The task is evaluated after every epoch.
        eval_size: Number of sequences of the evaluation.
        per_doubling: Additional evaluations per doubling of the step while the step is below 4 * steps, where sinks
            form.
        seed: Set from seed_everything.
    """

    def __init__(
        self, batch_size: int = 256, steps: int = 50, eval_size: int = 256, per_doubling: int = 0, seed: int = 0
    ) -> None:
        super().__init__()
        require_at_least(per_doubling, 0, "data.per_doubling")
        for name, value in {"batch_size": batch_size, "steps": steps, "eval_size": eval_size}.items():
            require_at_least(value, 1, f"data.{name}")
            if value > 1_000_000:
                raise UserError(f"data.{name} must be at most 1,000,000, got {value}")
        self.batch_size, self.steps, self.eval_size, self.seed = batch_size, steps, eval_size, seed
        self.early_steps = early_steps(steps, per_doubling)

    @property
    def toy(self) -> ToyConfig:
        """The configuration of the model's task."""
        assert self.trainer is not None
        config: ToyConfig = self.trainer.lightning_module.toy  # type: ignore[assignment]
        return config

    def setup(self, stage: str | None = None) -> None:
        """Refuse to run in several processes.

        Raises:
            UserError: There is more than one process, and all of them would draw the same sequences.
        """
        if self.trainer is not None and self.trainer.world_size > 1:
            raise UserError(
                f"trainer.devices: toy tasks run in one process, not {self.trainer.world_size}; "
                "run several seeds or mechanisms in parallel instead"
            )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the batches of an epoch, starting at the trainer's position."""
        steps = _Steps(self.steps, lambda: training_position(self.trainer))
        return DataLoader(_Stream(self.toy, self.seed, self.batch_size), batch_sampler=steps, collate_fn=_only)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the evaluation sequences as a single batch."""
        tokens = evaluation_tokens(self.toy, self.seed, self.eval_size)
        return DataLoader([(tokens,)], batch_size=None)  # type: ignore[arg-type]

    test_dataloader = val_dataloader
    predict_dataloader = val_dataloader

    def probe_images(self, count: int) -> ProbeSet:
        """Return the first `count` evaluation sequences and their names, for diagnostics."""
        tokens = evaluation_tokens(self.toy, self.seed, max(count, self.eval_size))[:count]
        return ProbeSet(tokens, [f"sequence {number}" for number in range(count)])


class _Steps(EpochBatches[int]):
    """Yields step numbers, counted across epochs."""

    def batches(self, epoch: int, start: int) -> Iterator[list[int]]:
        """Yield one number per batch."""
        for batch in range(start, self.length):
            yield [epoch * self.length + batch]


class _Stream(Dataset[Batch]):
    """Maps a step number to its batch."""

    def __init__(self, config: ToyConfig, seed: int, size: int) -> None:
        self.config, self.seed, self.size = config, seed, size

    def __getitem__(self, step: int) -> Batch:
        return (training_batch(self.config, self.seed, step, self.size),)


def _only(batches: list[Batch]) -> Batch:
    """Collate: the dataset already returns a whole batch."""
    return batches[0]

"""The data module reads its position from a real trainer, wherever in an epoch the checkpoint was written."""

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from shard_sets import COUNTS, GRAY, write_set

from sinkablate.config import AugmentConfig
from sinkablate.data.datamodule import ImageData
from sinkablate.data.samples import Sample


class Recorder(lightning.LightningModule):
    """Records each training batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 4)
        self.batches: list[tuple[int, list[str], float]] = []

    def training_step(self, batch: Sample, index: int) -> torch.Tensor:
        self.batches.append((self.current_epoch, batch.key, float(batch.image.sum())))
        return torch.nn.functional.cross_entropy(self.layer(batch.image.flatten(1)), torch.as_tensor(batch.target))

    def validation_step(self, batch: Sample, index: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class SaveAt(lightning.Callback):
    """Writes one checkpoint at a hook after a number of batches."""

    def __init__(self, hook: str, batches: int, path: Path) -> None:
        self.batches, self.path = batches, path
        setattr(self, hook, self.save)

    def save(self, trainer: lightning.Trainer, module: Recorder, *_: Any) -> None:
        if len(module.batches) == self.batches and not self.path.exists():
            trainer.save_checkpoint(self.path)


def fit(root: Path, limit: float | int, callback: SaveAt | None = None, resume: Path | None = None) -> list[Any]:
    module = Recorder()
    data = ImageData(write_set(root), GRAY, AugmentConfig(scale=(0.3, 1.0)), batch_size=9, seed=3)
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_train_batches=limit,
        callbacks=[callback] if callback else [],
    )
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=False)
    return module.batches


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("limit", [1.0, 3])
@pytest.mark.parametrize(
    "hook", ["on_train_batch_start", "on_train_batch_end", "on_train_epoch_end", "on_validation_end"]
)
def test_a_resumed_run_uses_the_batches_of_an_uninterrupted_run(tmp_path: Path, hook: str, limit: float | int) -> None:
    length = min(sum(COUNTS) // 9, limit) if isinstance(limit, int) else sum(COUNTS) // 9
    uninterrupted = fit(tmp_path / "set", limit)
    assert len(uninterrupted) == 3 * length
    stops = range(1, 2 * length + 1) if "batch" in hook else (length, 2 * length)
    for stop in stops:
        path = tmp_path / f"{hook}-{stop}.ckpt"
        fit(tmp_path / "set", limit, SaveAt(hook, stop, path))
        assert fit(tmp_path / "set", limit, resume=path) == uninterrupted[stop:], f"stopped after {stop} batches"

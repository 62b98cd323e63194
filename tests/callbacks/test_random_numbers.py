"""`sa.SinkDiagnostics` draws images without a trace in the random numbers of training."""

import random
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from training import quiet_trainer

import sinkablate as sa

IMAGES = torch.randn(24, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def model() -> nn.Module:
    return sa.create_model("vit_mini", embed_dim=32, num_heads=2, depth=2, drop_path_rate=0.5, seed=3)


class Augmented(Dataset[Any]):
    """Images with noise from the global generators of Python, NumPy and PyTorch."""

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        scale = random.random() + np.random.rand()
        return scale * IMAGES[index] + torch.randn(1, 28, 28), index % 10


def shuffling(own_generator: bool = True) -> DataLoader[Any]:
    """A loader whose order comes from a generator of its own or from the global one."""
    generator = torch.Generator().manual_seed(5) if own_generator else None
    return DataLoader(Augmented(), batch_size=8, shuffle=True, generator=generator)


class Classifier(L.LightningModule):
    """A user's classifier, which keeps its losses."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = model()
        self.losses: list[float] = []

    def training_step(self, batch: Any, _: int) -> Tensor:
        images, labels = batch
        loss = nn.functional.cross_entropy(self.encoder(images), labels)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def losses_of_a_trainer(loader: DataLoader[Any], sinks: sa.SinkDiagnostics | None, root: Path) -> list[float]:
    L.seed_everything(0)
    module = Classifier()
    quiet_trainer(root, max_epochs=2, logger=False, callbacks=[sinks] if sinks else []).fit(module, loader)
    return module.losses


def losses_of_a_loop(loader: DataLoader[Any], sinks: sa.SinkDiagnostics | None, _root: Path) -> list[float]:
    L.seed_everything(0)
    module = Classifier()
    optimizer: Any = module.configure_optimizers()
    for _ in range(2):
        for batch in loader:
            module.training_step(batch, 0).backward()
            optimizer.step()
            optimizer.zero_grad()
            if sinks:
                assert sinks.step(module, len(module.losses))
    return module.losses


@pytest.mark.parametrize("own_generator", [True, False], ids=["own generator", "global generator"])
@pytest.mark.parametrize("train", [losses_of_a_trainer, losses_of_a_loop])
def test_the_losses_are_those_of_training_without_diagnostics(train: Any, own_generator: bool, tmp_path: Path) -> None:
    plain = train(shuffling(own_generator), None, tmp_path)
    assert len(set(plain)) == len(plain) == 6
    loader = shuffling(own_generator)  # measured and trained on
    sinks = sa.SinkDiagnostics(loader, every_n_steps=1, backbone="encoder", limit=10)
    assert train(loader, sinks, tmp_path) == plain
    assert sinks.latest


def test_a_shuffling_loader_gives_the_same_images_at_every_step_and_in_every_run() -> None:
    first, net, loader = sa.SinkDiagnostics(shuffling(), limit=10), model(), shuffling()
    scalars = first.measure(net, 0)
    next(iter(loader))
    torch.manual_seed(2)
    random.seed(2)
    assert first.measure(net, 1) == scalars
    assert sa.SinkDiagnostics(loader, limit=10).measure(net, 0) == scalars


def test_interventions_leave_the_random_state_as_it_was() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    sa.intervene(model(), shuffling(own_generator=False), [(0, 0)], ["zero_value"])
    assert torch.equal(torch.get_rng_state(), before)

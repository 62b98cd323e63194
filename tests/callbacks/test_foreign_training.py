"""`sa.SinkDiagnostics` in a user's own modules, Trainers and training loops."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from running import column, fit, metrics
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from training import quiet_trainer

import sinkablate as sa
from sinkablate.callbacks.preemption import Preemption
from sinkablate.data.datamodule import ImageData
from sinkablate.diagnostics.schedule import early_steps


class Classifier(L.LightningModule):
    """A user's own classifier, with the model in a submodule."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.net = nn.ModuleDict({"encoder": encoder})

    def training_step(self, batch: Any, _: int) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self.net["encoder"](images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Steps(DummyLogger):
    """Records the sink scalars of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.logged: dict[int | None, dict[str, float]] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:  # type: ignore[override]
        if "sink/events" in metrics:
            self.logged[step] = dict(metrics)


def model() -> nn.Module:
    return sa.create_model("vit_mini", gate="headwise", embed_dim=32, num_heads=2, depth=2, seed=3)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(24, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def loader(images: Tensor) -> DataLoader[Any]:
    return DataLoader(TensorDataset(images, torch.arange(len(images)) % 10), batch_size=8)


def trained(images: Tensor, callback: L.Callback | None, root: Path) -> tuple[Steps, dict[str, Tensor]]:
    """Train for one epoch of three steps."""
    steps, module = Steps(), Classifier(model())
    torch.manual_seed(0)
    callbacks = [callback] if callback else []
    quiet_trainer(root, max_epochs=1, logger=steps, callbacks=callbacks).fit(module, loader(images))
    return steps, module.state_dict()


def test_a_trainer_and_a_plain_loop_give_the_same_scalars_and_change_nothing(images: Tensor, tmp_path: Path) -> None:
    callback = sa.SinkDiagnostics(images[:10], every_n_steps=2, backbone="net.encoder")
    steps, weights = trained(images, callback, tmp_path)
    assert list(steps.logged) == [0, 2, 3]
    assert callback.latest == steps.logged[3]
    assert callback.heads.height == callback.blocks.height * 2 == 4
    _, untouched = trained(images, None, tmp_path)
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in weights.items())
    assert not any(tmp_path.rglob("*.parquet"))

    plain, net = sa.SinkDiagnostics(loader(images[:10]), every_n_steps=2), model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    results = {0: plain.step(net, 0)}
    for step, (batch, labels) in enumerate(loader(images), 1):
        nn.functional.cross_entropy(net(batch), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        results[step] = plain.step(net, step)
        assert plain.step(net, step) is None, "a step is measured once"
    results[3] = plain.measure(net, 3)
    assert {step: scalars for step, scalars in results.items() if scalars} == steps.logged
    assert sa.measure(net, images[:10]).scalars == plain.latest


def test_the_scalars_equal_those_of_fit(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    fit(run_dir).succeeded()
    run = sa.load_run(run_dir)
    scalars = sa.SinkDiagnostics(run.images, batch_size=8).measure(run.model, 2)
    logged = metrics(run_dir)[-1]
    assert {name: float(logged[name]) for name in scalars} == scalars
    assert torch.equal(run.images, ImageData(batch_size=8).probe_images(8).images)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"backbone": "net.decoder"}, "backbone=net.decoder: Classifier has no such submodule"),
        ({}, "name the submodule, as in backbone='model.encoder'"),
        ({"images": [torch.zeros(3), "x"], "backbone": "net.encoder"}, "images"),
        ({"images": [], "backbone": "net.encoder"}, "images is empty; at least one image is needed"),
    ],
)
def test_unmeasurable_modules_and_images_are_refused_before_training(
    words: dict[str, Any], message: str, images: Tensor, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        trained(images, sa.SinkDiagnostics(**{"images": images[:4]} | words), tmp_path)


@pytest.mark.parametrize("words", [{"every_n_steps": -1}, {"batch_size": 0}, {"limit": 0}, {"per_doubling": -1}])
def test_numbers_out_of_range_are_refused(words: dict[str, int], images: Tensor) -> None:
    [(name, value)] = words.items()
    with pytest.raises(sa.UserError, match=f"^{name} must be at least [01], got {value}$"):
        sa.SinkDiagnostics(images, **words)  # type: ignore[arg-type]


def test_early_steps_are_measured_geometrically(images: Tensor) -> None:
    callback = sa.SinkDiagnostics(images, every_n_steps=50, per_doubling=2)
    due = [step for step in range(400) if callback.is_due(step)]
    assert due == [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 50, 64, 91, 100, 128, 150, 181, *range(200, 400, 50)]
    assert early_steps(50, 0) == frozenset()
    assert not sa.SinkDiagnostics(images, every_n_steps=0, per_doubling=2).is_due(1)


def test_fit_measures_early_steps_more_often_and_resumes_on_the_same_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--diagnostics.per_doubling=2", "--trainer.limit_train_batches=4", "--trainer.max_epochs=2")
    fit(tmp_path / "unbroken", *words).succeeded()

    def die(_self: Any, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == 5:
            raise RuntimeError("died")

    monkeypatch.setattr(Preemption, "on_before_backward", die)
    with pytest.raises(RuntimeError, match="died"):
        fit(tmp_path / "broken", *words)
    monkeypatch.undo()
    fit(tmp_path / "broken", *words, "--ckpt_path=auto").succeeded()
    for name in ("unbroken", "broken"):
        steps = [path.name for path in sorted((tmp_path / name / "diagnostics").glob("*.parquet"))]
        assert steps == [f"step_{step:08d}.parquet" for step in (0, 1, 2, 3, 4, 6, 8)]
    assert column(tmp_path / "broken", "sink/mass_max") == column(tmp_path / "unbroken", "sink/mass_max")

"""SIGReg against its closed forms and numerical gradients; LeJEPA's parts."""

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor, distributed
from variants import noise

from sinkablate.config import ImageConfig, LeJepaConfig, ViewsConfig
from sinkablate.data.transforms import Views
from sinkablate.tasks.lejepa import Moments, projector
from sinkablate.tasks.sigreg import directions, effective_rank, invariance, quadrature, sigreg


def gaussian(n: int, seed: int = 0) -> Tensor:
    return noise(n, 32, seed=seed, dtype=torch.float64)


def test_the_loss_of_collapsed_embeddings_grows_with_the_batch() -> None:
    a = directions(0, "0/0", 16, 32).double()
    for n in (8, 64):
        assert float(sigreg(torch.zeros(n, 32, dtype=torch.float64), a)) == pytest.approx(0.40205 * n, rel=1e-4)


@pytest.mark.parametrize("n", [16, 256])
def test_the_loss_of_normal_embeddings_does_not_depend_on_the_batch(n: int) -> None:
    costs = [float(sigreg(gaussian(n, seed), directions(0, str(seed), 64, 32).double())) for seed in range(60)]
    assert sum(costs) / 60 == pytest.approx(1.0525, rel=0.06)
    t, w, phi = quadrature(torch.zeros(1, dtype=torch.float64))
    assert float((w * phi * (1 - torch.exp(-t.square()))).sum()) == pytest.approx(1.0525, abs=1e-4)


def test_the_loss_of_repeated_embeddings_grows_with_their_number() -> None:
    a = directions(0, "0/0", 64, 32).double()
    z = gaussian(64)
    assert float(sigreg(z.repeat(4, 1), a)) == pytest.approx(4 * float(sigreg(z, a)))


def test_one_direction_by_hand() -> None:
    z, t = torch.tensor([[0.5, 9.0], [-1.0, 9.0]], dtype=torch.float64), torch.linspace(0, 3, 17, dtype=torch.float64)
    cos, sin = (sum(f(float(x) * t) for x in z[:, 0]) / 2 for f in (torch.cos, torch.sin))
    phi = torch.exp(-(t**2) / 2)
    expected = 2 * torch.trapezoid(2 * phi * ((cos - phi) ** 2 + sin**2), t)
    assert float(sigreg(z, torch.tensor([[1.0], [0.0]]))) == pytest.approx(float(expected))


def test_gradients_equal_finite_differences() -> None:
    a = directions(0, "0/0", 8, 4).double()
    z = noise(6, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: sigreg(z, a), z)
    assert torch.autograd.gradcheck(lambda z: invariance(z.view(3, 2, 4)), z)


def test_directions_depend_only_on_seed_and_index() -> None:
    one = directions(0, "1/2", 256, 128)
    assert torch.equal(one, directions(0, "1/2", 256, 128))
    torch.testing.assert_close(one.norm(dim=0), torch.ones(256))
    assert not torch.equal(one, directions(0, "1/3", 256, 128))
    assert not torch.equal(one, directions(1, "1/2", 256, 128))


def _rank(rank: int, port: int, out: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    z = gaussian(20)[rank * 10 : (rank + 1) * 10].requires_grad_()
    loss = sigreg(z, directions(0, "0/0", 16, 32).double(), all_ranks=True)
    loss.backward()
    torch.save((loss.detach(), z.grad), f"{out}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.heavy
def test_averages_over_two_ranks_equal_one_process(tmp_path: Path) -> None:
    """The gradients of the ranks, averaged as in data parallelism, equal those of one process."""
    mp.spawn(_rank, (29_000 + os.getpid() % 1000, str(tmp_path)), nprocs=2)
    z = gaussian(20).requires_grad_()
    loss = sigreg(z, directions(0, "0/0", 16, 32).double())
    loss.backward()
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for other, _ in results:
        torch.testing.assert_close(other, loss.detach())
    torch.testing.assert_close(torch.cat([gradient for _, gradient in results]) / 2, z.grad)


@pytest.mark.parametrize(("values", "expected"), [((1.0,) * 4, 4), ((1.0, 0, 0, 0), 1), ((1.0, 1.0, 0, 0), 2)])
def test_effective_rank_counts_equal_directions(values: tuple[float, ...], expected: float) -> None:
    assert float(effective_rank(torch.diag(torch.tensor(values, dtype=torch.float64)))) == pytest.approx(expected)


def test_covariance_accumulates_over_batches() -> None:
    features = noise(50, 6, dtype=torch.float64) @ noise(6, 6, seed=1, dtype=torch.float64) + 3
    moments = Moments(6)
    for part in features.split(17):
        moments.update(part)
    torch.testing.assert_close(moments.compute(), torch.cov(features.mT, correction=0))


@pytest.mark.parametrize("channels", [1, 3])
def test_views_differ_and_have_the_expected_shape(channels: int) -> None:
    from PIL import Image

    image = Image.new("RGB" if channels == 3 else "L", (40, 30))
    image.paste(200, (5, 5, 20, 20)) if channels == 1 else image.paste((200, 10, 90), (5, 5, 20, 20))
    mean = (0.5,) * channels
    made = Views(ImageConfig(size=28, in_chans=channels, mean=mean, std=mean), ViewsConfig(count=4, blur_size=3))
    views = made(image)
    assert views.shape == (4, channels, 28, 28)
    assert len({view.numpy().tobytes() for view in views}) == 4


def test_the_projector_has_the_published_architecture() -> None:
    layers: Any = projector(384, LeJepaConfig())
    assert [tuple(layer.weight.shape) for layer in layers if isinstance(layer, torch.nn.Linear)] == [
        (2048, 384),
        (2048, 2048),
        (128, 2048),
    ]
    assert math.isclose(float(layers[1].weight.detach().mean()), 1)

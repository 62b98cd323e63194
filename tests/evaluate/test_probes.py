"""Nearest neighbors and linear probes against direct computations in float64, and answers that are known."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from variants import noise

from sinkablate.config import LinearConfig
from sinkablate.errors import UserError
from sinkablate.evaluate import knn
from sinkablate.evaluate.accuracy import accuracies
from sinkablate.evaluate.knn import Neighbors, nearest_neighbors, votes
from sinkablate.evaluate.linear import LinearProbe, standardization

CLASSES = 7


def labels(count: int, seed: int) -> Tensor:
    return torch.randint(CLASSES, (count,), generator=torch.Generator().manual_seed(seed))


def chunked(features: Tensor, targets: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(features.split(size), targets.split(size), strict=True))


@pytest.mark.parametrize(("size", "rows", "memory"), [(100, 1, 2**29), (13, 30, 2**29), (13, 1, 500), (1, 1, 1)])
def test_the_neighbors_and_votes_equal_a_direct_computation(
    size: int, rows: int, memory: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knn, "BLOCK_ROWS", rows)
    train, queries, targets = noise(100, 12), noise(9, 12, seed=1), labels(100, 0)
    nearest = nearest_neighbors(queries, chunked(train, targets, size), 20, memory)
    unit_train, unit = (
        x.double().numpy() / np.linalg.norm(x.double(), axis=1, keepdims=True) for x in (train, queries)
    )
    similarity = unit @ unit_train.T
    order = np.argsort(-similarity, axis=1)[:, :20]
    np.testing.assert_array_equal(nearest.target.numpy(), targets.numpy()[order])
    np.testing.assert_allclose(nearest.similarity.numpy(), np.take_along_axis(similarity, order, axis=1), atol=1e-6)
    for k in (1, 5, 20):
        expected = np.zeros((9, CLASSES))
        for query in range(9):
            for index in order[query, :k]:
                expected[query, targets[index]] += np.exp(similarity[query, index] / 0.07)
        np.testing.assert_allclose(votes(nearest, k, 0.07, CLASSES).numpy(), expected, rtol=1e-4)


def test_separable_features_are_classified_without_error() -> None:
    targets, expected = labels(200, 0), labels(50, 1)
    centers = torch.eye(CLASSES)
    train, val = (centers[y] + 0.05 * noise(len(y), CLASSES, seed=2) for y in (targets, expected))
    nearest = nearest_neighbors(val, [(train, targets)], 10)
    assert accuracies(votes(nearest, 10, 0.07, CLASSES), expected) == {1: 1.0, 5: 1.0}
    probe = LinearProbe(LinearConfig(epochs=5, batch_size=32), CLASSES, seed=0)
    lr, decay, held_out = probe.choose(train, targets)
    weights, bias = probe.fit(train, targets, [(lr, decay)])
    assert held_out == 1.0
    assert accuracies(val @ weights[0] + bias[0], expected) == {1: 1.0, 5: 1.0}


def test_constant_features_give_the_chance_level() -> None:
    targets = torch.arange(140) % CLASSES
    constant = torch.ones(140, 3)
    nearest = nearest_neighbors(constant, [(constant, targets)], 20)
    assert accuracies(votes(nearest, 20, 0.07, CLASSES), targets)[1] == pytest.approx(1 / CLASSES)
    shift, scale = standardization(constant)
    probe = LinearProbe(LinearConfig(epochs=2, batch_size=64), CLASSES, seed=0)
    weights, bias = probe.fit((constant - shift) / scale, targets, [(0.1, 0.0)])
    assert accuracies((constant - shift) / scale @ weights[0] + bias[0], targets)[1] == pytest.approx(1 / CLASSES)


def test_the_grid_takes_the_steps_of_torch_optim_sgd() -> None:
    config = LinearConfig(lr=(0.03, 0.5), weight_decay=(0.0, 0.02), epochs=3, batch_size=32)
    features, targets = noise(80, 6, dtype=torch.float64), labels(80, 3)
    probe = LinearProbe(config, CLASSES, seed=4)
    settings = list(product(config.lr, config.weight_decay))
    weights, bias = probe.fit(features, targets, settings)
    for index, (lr, decay) in enumerate(settings):
        layer = nn.Linear(6, CLASSES, dtype=torch.float64)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        groups = [{"params": [layer.weight], "weight_decay": decay}, {"params": [layer.bias]}]
        optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=9)
        order = torch.Generator().manual_seed(4)
        for _ in range(3):
            for rows in torch.randperm(80, generator=order).split(32):
                optimizer.zero_grad()
                nn.functional.cross_entropy(layer(features[rows]), targets[rows]).backward()
                optimizer.step()
                schedule.step()
        torch.testing.assert_close(weights[index].T, layer.weight.detach(), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(bias[index], layer.bias.detach(), rtol=1e-10, atol=1e-12)


def test_the_setting_is_chosen_without_the_images_it_is_trained_on() -> None:
    """Random labels: a setting that is judged by its training images would reach a high accuracy."""
    features, targets = noise(300, 400), labels(300, 5)
    config = LinearConfig(epochs=20, batch_size=64)
    _, _, held_out = LinearProbe(config, CLASSES, seed=0).choose(features, targets)
    weights, bias = LinearProbe(config, CLASSES, seed=0).fit(features, targets, [(0.1, 0.0)])
    assert accuracies(features @ weights[0] + bias[0], targets)[1] == 1.0
    assert held_out < 0.5


def test_with_few_classes_only_the_first_place_counts() -> None:
    nearest = Neighbors(torch.ones(4, 1), torch.tensor([[0], [1], [1], [0]]))
    assert accuracies(votes(nearest, 1, 0.07, 2), torch.tensor([0, 1, 0, 0])) == {1: 0.75}


def test_features_are_standardized_block_by_block() -> None:
    features = torch.cat([noise(200_000, 2, seed=1) * 3 + 100, torch.ones(200_000, 1)], dim=1)
    shift, scale = standardization(features)
    torch.testing.assert_close(shift, features.double().mean(dim=0).float())
    torch.testing.assert_close(scale[:2], features.double().std(dim=0, correction=0)[:2].float())
    assert scale[2] == 1


def test_a_class_without_a_vote_is_no_hit() -> None:
    nearest = Neighbors(torch.ones(CLASSES, 1), torch.full((CLASSES, 1), 3))
    scores = votes(nearest, 1, 0.07, CLASSES)
    assert accuracies(scores, torch.arange(CLASSES), above=0) == {1: 1 / CLASSES, 5: 1 / CLASSES}


def test_the_held_out_images_do_not_move_the_features_of_the_others() -> None:
    """The accuracy on the held-out part equals that of a probe that has never seen it."""
    features, targets = noise(60, 3).exp(), labels(60, 1)
    config = LinearConfig(lr=(0.3,), weight_decay=(0.0,), epochs=3, batch_size=16)
    probe, order = LinearProbe(config, CLASSES, seed=0), torch.randperm(60, generator=torch.Generator().manual_seed(0))
    held, rest = order[:6], order[6:]
    features[held] *= 100
    shift, scale = standardization(features[rest])
    weights, bias = probe.fit((features[rest] - shift) / scale, targets[rest], [(0.3, 0.0)])
    expected = accuracies((features[held] - shift) / scale @ weights[0] + bias[0], targets[held])[1]
    assert probe.choose(features, targets) == (0.3, 0.0, expected)
    assert torch.equal(torch.stack(standardization(features, rest)), torch.stack((shift, scale)))


def test_one_training_image_is_refused() -> None:
    with pytest.raises(UserError, match="needs at least 2, but there is 1"):
        LinearProbe(LinearConfig(), CLASSES, seed=0).choose(noise(1, 3), torch.zeros(1, dtype=torch.int64))

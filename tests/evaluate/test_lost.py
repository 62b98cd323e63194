"""LOST against planted objects and a direct computation in float64."""

from math import inf

import numpy as np
import pytest
import torch
from torch import Tensor

from sinkablate.evaluate.lost import find_object, is_localized, overlap, seed_and_similar, to_pixels


def planted(mask: Tensor) -> Tensor:
    """Features (P, D) of a background in one direction, and of an object in the opposite one."""
    direction = torch.tensor([1.0, 0.5, -0.25])
    return torch.where(mask.view(-1, 1), -direction, direction)


def rectangle(rows: int, columns: int, box: tuple[int, int, int, int]) -> Tensor:
    """Mask (rows, columns) that is true in a box of patches (left, top, right, bottom)."""
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    left, top, right, bottom = box
    mask[top:bottom, left:right] = True
    return mask


def reference(features: Tensor, grid: tuple[int, int], expansion: int) -> tuple[int, set[tuple[int, int]]]:
    """The seed, and the patches of the object as (row, column), by loops and a flood fill in float64."""
    rows = features.double().numpy()
    count = len(rows)
    similarity = [[float(np.dot(rows[p], rows[q])) for q in range(count)] for p in range(count)]
    degree = [sum(similarity[p][q] > 0 for q in range(count) if q != p) for p in range(count)]
    order = sorted(range(count), key=lambda p: (degree[p], p))
    seed = order[0]
    similar = [p for p in order[:expansion] if p == seed or similarity[seed][p] > 0]
    positive = {divmod(q, grid[1]) for q in range(count) if q == seed or sum(similarity[p][q] for p in similar) > 0}
    reached, edge = set(), [divmod(seed, grid[1])]
    while edge:
        row, column = edge.pop()
        if (row, column) in positive and (row, column) not in reached:
            reached.add((row, column))
            edge += [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
    return seed, reached


@pytest.mark.parametrize("expansion", [1, 5, 100])
@pytest.mark.parametrize("seed", range(6))
def test_equals_a_direct_computation(seed: int, expansion: int) -> None:
    grid = (5, 7)
    features = torch.randn(35, 4, generator=torch.Generator().manual_seed(seed))
    found = find_object(features, grid, expansion)
    expected_seed, reached = reference(features, grid, expansion)
    assert found.seed == expected_seed
    assert {(row, column) for row, column in found.mask.nonzero().tolist()} == reached
    down, across = zip(*reached, strict=True)
    assert found.box.tolist() == [min(across), min(down), max(across) + 1, max(down) + 1]


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (2, 1, 5, 4), (5, 3, 8, 6)])
def test_finds_a_planted_object(box: tuple[int, int, int, int]) -> None:
    mask = rectangle(6, 8, box)
    found = find_object(planted(mask), (6, 8))
    assert found.mask.equal(mask)
    truth = torch.tensor([box]).double() * 7
    pixels = to_pixels(found.box, (6, 8), (42, 56))
    assert pixels.tolist() == truth[0].tolist()
    assert overlap(pixels, truth) == 1
    assert is_localized(pixels, truth)


def test_only_the_component_of_the_seed_counts() -> None:
    """A second object touches the first one at a corner only."""
    mask = rectangle(6, 6, (0, 0, 2, 2)) | rectangle(6, 6, (2, 2, 5, 3))
    found = find_object(planted(mask), (6, 6))
    assert found.seed == 0
    assert found.box.tolist() == [0, 0, 2, 2]


def test_an_added_constant_hides_the_object() -> None:
    """With a large common vector, every patch is similar to every other, and the box is the image."""
    features = planted(rectangle(6, 8, (2, 1, 5, 4)))
    assert find_object(features + 10, (6, 8)).box.tolist() == [0, 0, 8, 6]


def test_features_of_zero_give_the_first_patch() -> None:
    found = find_object(torch.zeros(12, 4), (3, 4))
    assert found.seed == 0
    assert found.box.tolist() == [0, 0, 1, 1]


def test_the_expansion_limits_the_similar_patches() -> None:
    similarity = torch.tensor([[1.0, 1, 1, -1], [1, 1, 1, 1], [1, 1, 1, -1], [-1, 1, -1, 1]])
    assert [set(seed_and_similar(similarity, k)[1].tolist()) for k in (1, 2, 4)] == [{3}, {3}, {1, 3}]


def test_a_box_is_judged_by_the_best_ground_truth() -> None:
    truth = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    half = torch.tensor([0.0, 0, 10, 5]).double()
    assert overlap(half, truth) == 0.5
    assert is_localized(half, truth)
    assert not is_localized(half - torch.tensor([0, 0, 0, 0.1]), truth)
    assert not is_localized(half, torch.zeros(0, 4))
    assert overlap(half, truth) < inf

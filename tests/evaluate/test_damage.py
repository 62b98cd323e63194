"""Distances to full precision and their bootstrap intervals, against closed forms."""

from math import isnan

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, kl_divergence
from variants import noise

from sinkablate.evaluate import miou
from sinkablate.evaluate.damage import (
    divergence,
    drop_of_iou,
    interval,
    mean,
    mean_cosine,
    mean_iou,
    share_removed,
    value_of,
)


def test_divergence_equals_that_of_distributions() -> None:
    full, quantized = noise(5, 7) * 3, noise(5, 7, seed=1) * 3
    expected = kl_divergence(Categorical(logits=full.double()), Categorical(logits=quantized.double()))
    torch.testing.assert_close(divergence(full, quantized), expected)
    assert divergence(full, full + 4).abs().max() < 1e-12  # a common shift of the logits changes nothing


def test_cosine_is_averaged_over_tokens() -> None:
    x = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]])
    y = torch.tensor([[[5.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]])
    assert mean_cosine(x, y).tolist() == [0.0]
    assert mean_cosine(x, x * 7).tolist() == pytest.approx([1.0])


def test_the_interval_of_a_mean_equals_its_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = interval(mean, values)
    half = 1.96 * values.std(ddof=1) / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)
    assert interval(mean, values) == (low, high)
    assert interval(mean, values, seed=1) != (low, high)
    assert all(map(isnan, interval(mean, values[:1])))


def test_images_are_resampled_together() -> None:
    """A treatment that halves the damage of every image has no uncertainty, whatever the spread over images."""
    before = np.random.default_rng(0).exponential(1, 50)
    assert value_of(share_removed, before, before / 2) == pytest.approx(0.5)
    assert interval(share_removed, before, before / 2) == pytest.approx((0.5, 0.5))


def test_a_share_of_no_damage_is_undefined() -> None:
    assert isnan(value_of(share_removed, np.zeros(3), np.ones(3)))


def test_resamples_without_damage_are_left_out_of_the_interval() -> None:
    """About a third of the resamples do not contain the only image with damage, of which one half is removed."""
    before = np.zeros(100)
    before[7] = 1
    assert interval(share_removed, before, before / 2) == pytest.approx((0.5, 0.5))
    assert all(map(isnan, interval(share_removed, np.zeros(100), before)))


def test_mean_iou_equals_that_of_segmentation() -> None:
    counts = torch.randint(0, 9, (6, 4, 4), generator=torch.Generator().manual_seed(0))
    counts[:, 2] = 0  # a class that does not occur
    expected = [miou.mean_iou(of_image) for of_image in counts]
    assert mean_iou(counts.double().numpy()) == pytest.approx(expected)
    samples = counts.double().numpy()
    assert value_of(mean_iou, samples) == pytest.approx(miou.mean_iou(counts.sum(0)))
    assert value_of(drop_of_iou, samples, samples) == 0
    low, high = interval(mean_iou, samples)
    assert low < value_of(mean_iou, samples) < high

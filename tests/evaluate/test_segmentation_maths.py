"""The parts of the segmentation probe against other implementations and direct computations, and known answers."""

from collections.abc import Iterator
from math import cos, pi

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.classification import MulticlassJaccardIndex

from sinkablate.data.dense import IGNORED
from sinkablate.evaluate.augmented import RATIO, SCALE, crop_box
from sinkablate.evaluate.miou import confusion, iou, mean_iou, pixel_accuracy
from sinkablate.evaluate.segmentation_training import Batch, Recipe, Trained, ahead, pixel_loss, train_head

CPU = torch.device("cpu")
CLASSES, SIDE, PATCH = 3, 16, 4


def random_classes(*shape: int, classes: int, seed: int) -> Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_the_iou_is_that_of_torchmetrics() -> None:
    target, predicted = (random_classes(5, 20, 20, classes=6, seed=seed) for seed in (0, 1))
    predicted = torch.where(random_classes(5, 20, 20, classes=2, seed=2) == 0, target, predicted)
    target[random_classes(5, 20, 20, classes=4, seed=3) == 0] = IGNORED
    counts = sum(confusion(p, t, 6) for p, t in zip(predicted, target, strict=True))
    assert isinstance(counts, Tensor)
    metric = MulticlassJaccardIndex(6, average="none", ignore_index=IGNORED)
    torch.testing.assert_close(iou(counts).float(), metric(predicted.long(), target.long()))
    kept = target != IGNORED
    assert pixel_accuracy(counts) == pytest.approx(float((predicted == target)[kept].double().mean()))


def test_a_class_without_a_target_pixel_is_absent_and_not_zero() -> None:
    counts = confusion(torch.tensor([0, 0, 2, 1]), torch.tensor([0, 0, 1, 1]), 4)
    assert iou(counts)[:2].tolist() == [1.0, 0.5]
    assert iou(counts)[2:].isnan().all()  # class 2 is predicted, class 3 is not; neither occurs
    assert mean_iou(counts) == 0.75


def test_shares_are_computed_in_double_precision() -> None:
    assert pixel_accuracy(torch.tensor([[3, 2], [0, 0]])) == 3 / 5


def test_the_loss_is_the_mean_over_labeled_pixels() -> None:
    logits = torch.randn(2, 5, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = random_classes(2, 8, 8, classes=5, seed=1)
    target[0] = IGNORED
    direct = -torch.log_softmax(logits[1], 0).gather(0, target[1].long()[None]).mean()
    torch.testing.assert_close(pixel_loss(logits, target), direct)
    logits.requires_grad_(True)
    loss = pixel_loss(logits, torch.full_like(target, IGNORED))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0
    assert not gradient.any()


def test_the_learning_rate_rises_for_100_steps_and_falls_to_a_hundredth() -> None:
    recipe = Recipe(epochs=1)
    rates = [recipe.rate(step, 500) for step in range(501)]
    assert rates[0] == rates[500] == pytest.approx(0.01)
    assert rates[100] == 1
    assert rates[50] == pytest.approx(0.505)
    assert rates[300] == pytest.approx(0.01 + 0.99 * (1 + cos(pi / 2)) / 2)


def stripes(count: int, seed: int) -> Tensor:
    """Masks (n, 16, 16) of vertical stripes of one patch each."""
    return (
        random_classes(count, SIDE // PATCH, classes=CLASSES, seed=seed)
        .repeat_interleave(PATCH, 1)[:, None]
        .expand(-1, SIDE, -1)
    )


def encoded(masks: Tensor) -> Tensor:
    """Tokens (n, 16, 3) that encode the class of each patch."""
    return F.one_hot(masks[:, ::PATCH, ::PATCH].flatten(1).long(), CLASSES).half()


def probed(tokens: tuple[Tensor, Tensor], masks: tuple[Tensor, Tensor], epochs: int, seed: int = 0) -> Trained:
    """Train on the first set, one step per epoch, and evaluate on the second one."""

    def batches(index: int) -> Iterator[Batch]:
        yield tokens[index], masks[index]

    return train_head(
        Recipe(epochs=epochs),
        width=tokens[0].shape[-1],
        classes=CLASSES,
        steps_per_epoch=1,
        training=lambda _: ahead(batches(0)),
        validation=lambda: batches(1),
        seed=seed,
        device=CPU,
    )


def test_features_that_encode_the_class_give_a_miou_of_1() -> None:
    masks = stripes(8, 0), stripes(4, 1)
    trained = probed((10 * encoded(masks[0]), 10 * encoded(masks[1])), masks, epochs=150)
    assert mean_iou(trained.counts[-1]) == mean_iou(trained.best) == 1


def test_a_head_is_a_function_of_its_seed() -> None:
    masks = stripes(4, 0), stripes(2, 1)
    state = torch.get_rng_state()
    first, again, other = (probed((encoded(masks[0]), encoded(masks[1])), masks, 3, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(again.head.weight, first.head.weight)
    assert not torch.equal(other.head.weight, first.head.weight)


def test_constant_features_give_the_chance_level() -> None:
    masks = stripes(8, 0).clone(), stripes(4, 1).clone()
    for mask in masks:
        mask[:, :12] = 2  # the most frequent class
    constant = tuple(torch.ones(len(mask), 16, 5) for mask in masks)
    counts = probed((constant[0], constant[1]), masks, epochs=200).counts[-1]
    share = float((masks[1] == 2).double().mean())
    assert mean_iou(counts) == pytest.approx(share / CLASSES)
    assert pixel_accuracy(counts) == pytest.approx(share)


def test_the_best_epoch_is_the_one_with_the_largest_miou() -> None:
    counts = [torch.tensor(rows) for rows in ([[2, 2], [1, 3]], [[4, 0], [0, 4]], [[3, 1], [0, 4]])]
    assert Trained(torch.nn.Linear(1, 2), counts).best is counts[1]


@pytest.mark.parametrize("size", [(64, 64), (500, 300), (90, 900), (3, 2)])
def test_crops_lie_inside_the_image_and_have_the_area_and_ratio_of_the_protocol(size: tuple[int, int]) -> None:
    width, height = size
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(200):
        left, top, right, bottom = crop_box(width, height, rng)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        areas.append((right - left) * (bottom - top) / (width * height))
        slack = 1 / min(right - left, bottom - top)  # of rounding
        assert RATIO[0] * (1 - slack) <= (right - left) / (bottom - top) <= RATIO[1] * (1 + slack)
    if size == (64, 64):
        assert min(areas) >= SCALE[0] - 0.02
        assert max(areas) <= 1
        assert np.std(areas) > 0.1

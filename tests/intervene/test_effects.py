"""What is measured at the end of the network, against closed forms."""

import math

import pytest
import torch
import torch.nn.functional as F
from variants import noise

from sinkablate.intervene.effects import class_effects, common_share, cosine, mean_change, relative_change

OWN = noise(5, 7, seed=1, dtype=torch.float64)
COUNTED = torch.tensor([[False, True, True, True, False]])


def test_the_same_change_of_every_token_has_common_share_one() -> None:
    direction = noise(7, seed=2, dtype=torch.float64)
    edited = (OWN + direction)[None]
    assert float(common_share(OWN, edited, COUNTED)) == pytest.approx(1)
    torch.testing.assert_close(mean_change(OWN, edited, COUNTED)[0], direction)
    size = math.sqrt(3) * float(direction.norm()) / float(OWN[1:4].norm())
    assert float(relative_change(OWN, edited, COUNTED)) == pytest.approx(size)


def test_n_orthogonal_changes_have_common_share_one_nth() -> None:
    edited = OWN.clone()[None]
    for token, channel in ((1, 0), (2, 1), (3, 2)):
        edited[0, token, channel] += 0.5
    assert float(common_share(OWN, edited, COUNTED)) == pytest.approx(1 / 3)


def test_tokens_that_are_not_counted_have_no_effect() -> None:
    edited = OWN.clone()[None]
    edited[:, 0] += 100
    edited[:, 4] -= 100
    assert float(relative_change(OWN, edited, COUNTED)) == 0
    assert math.isnan(float(common_share(OWN, edited, COUNTED)))


@pytest.mark.parametrize(("x", "y", "expected"), [((1, 0), (2, 0), 1), ((1, 0), (0, 3), 0), ((1, 1), (-1, -1), -1)])
def test_cosine(x: tuple[float, float], y: tuple[float, float], expected: float) -> None:
    assert float(cosine(torch.tensor(x).double(), torch.tensor(y).double())) == pytest.approx(expected)
    assert math.isnan(float(cosine(torch.tensor(x).double(), torch.zeros(2).double())))


def test_effects_on_a_classifier() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    effects = class_effects(logits, target=0)
    p, q = logits[0].softmax(0), logits[2].softmax(0)
    torch.testing.assert_close(effects["kl"], torch.stack([torch.tensor(0.0), (p * (p / q).log()).sum()]))
    assert effects["agreement"].tolist() == [1, 0]
    assert effects["top1"].tolist() == [1, 1]
    assert effects["top1_edited"].tolist() == [1, 0]
    torch.testing.assert_close(
        effects["cross_entropy_edited"], F.cross_entropy(logits[1:], torch.tensor([0, 0]), reduction="none")
    )
    assert set(class_effects(logits, target=None)) == {"kl", "agreement"}

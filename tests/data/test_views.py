"""Every key of `data.views` does what it says, and nothing else."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import solarize

from sinkablate.config import ImageConfig, ViewsConfig
from sinkablate.data.transforms import Views

SIDE = 28
OFF: dict[str, Any] = dict.fromkeys(("hflip", "jitter_prob", "grayscale_prob", "blur_prob", "solarize_prob"), 0.0)
OFF |= {"scale": (1.0, 1.0), "count": 2}
PIXELS = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
RAMP = np.broadcast_to(np.arange(SIDE, dtype=np.uint8)[:, None, None] * 9, (SIDE, SIDE, 3))


def views(pixels: np.ndarray = PIXELS, **changed: Any) -> Tensor:
    """Two views of an image, (2, 3, 28, 28), as values from 0 to 1."""
    image = ImageConfig(size=SIDE, in_chans=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    torch.manual_seed(0)
    return Views(image, ViewsConfig(**{**OFF, **changed}))(Image.fromarray(pixels))


PLAIN = torch.from_numpy(PIXELS).permute(2, 0, 1) / 255


def test_with_everything_off_a_view_is_the_image() -> None:
    for view in views():
        torch.testing.assert_close(view, PLAIN, atol=1e-6, rtol=0)


def test_hflip_mirrors() -> None:
    torch.testing.assert_close(views(hflip=1.0)[0], PLAIN.flip(-1), atol=1e-6, rtol=0)


def test_solarize_prob_inverts_bright_pixels() -> None:
    expected = solarize(torch.from_numpy(PIXELS.copy()).permute(2, 0, 1), 128) / 255
    torch.testing.assert_close(views(solarize_prob=1.0)[0], expected, atol=1e-6, rtol=0)


def test_grayscale_prob_makes_the_channels_equal() -> None:
    gray = views(grayscale_prob=1.0)
    assert torch.equal(gray[:, 0], gray[:, 2])
    assert not torch.equal(PLAIN[0], PLAIN[2])


@pytest.mark.parametrize("size", [1, 3, 7])
def test_blur_averages_over_the_kernel(size: int) -> None:
    smoothed = views(blur_prob=1.0, blur_size=size)
    assert bool((smoothed.std() < 0.9 * PLAIN.std()).all()) == (size > 1)


def test_jitter_changes_as_many_colors_as_its_strengths_allow() -> None:
    first, second = views(jitter_prob=1.0)
    assert not torch.equal(first, second)
    torch.testing.assert_close(views(jitter_prob=1.0, jitter=(0.0,) * 4)[0], PLAIN, atol=0.01, rtol=0)
    brightness = views(jitter_prob=1.0, jitter=(0.8, 0.0, 0.0, 0.0))[0]
    ratio = (brightness / PLAIN)[(PLAIN > 0.3) & (brightness < 0.99)]
    assert float(ratio.std()) < 0.02
    assert abs(float(ratio.mean()) - 1) > 0.02


def test_scale_is_the_share_of_the_area() -> None:
    for area in (0.1, 0.5):
        rows = views(RAMP, scale=(area, area)).amax((1, 2, 3)) - views(RAMP, scale=(area, area)).amin((1, 2, 3))
        height = rows * 255 / 9 / SIDE  # height of the crop; its aspect ratio lies between 3/4 and 4/3
        assert (height < (area * 4 / 3) ** 0.5 + 0.1).all()
        assert (height > (area * 3 / 4) ** 0.5 - 0.1).all()

import pytest
import torch
from PIL import Image
from shard_sets import png
from timm.data import create_transform
from torchvision.transforms import Compose, Normalize, ToTensor

from sinkablate.config import AugmentConfig, ImageConfig
from sinkablate.data.samplers import Draw, preserve_random_state, seed_from_draw
from sinkablate.data.samples import Encoded, decode
from sinkablate.data.transforms import ToNormalizedTensor, eval_transform, train_transform
from sinkablate.errors import UserError

COLOR = ImageConfig(
    size=32, in_chans=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bilinear", crop_pct=0.8
)
GRAY = ImageConfig(size=28)


def picture(mode: str, size: int) -> Image.Image:
    return decode(Encoded(png(3, mode, size), 0, "", ""))


@pytest.mark.parametrize(("mode", "image"), [("L", GRAY), ("RGB", COLOR)])
def test_normalization_equals_torchvision(mode: str, image: ImageConfig) -> None:
    reference = Compose([ToTensor(), Normalize(image.mean, image.std)])(picture(mode, 20))
    tensor = ToNormalizedTensor(image.mean, image.std)(picture(mode, 20))
    assert tensor.is_contiguous()
    torch.testing.assert_close(tensor, reference)


def test_the_evaluation_transform_equals_timm() -> None:
    reference = create_transform(
        (3, 32, 32), interpolation="bilinear", mean=COLOR.mean, std=COLOR.std, crop_pct=COLOR.crop_pct
    )
    torch.testing.assert_close(eval_transform(COLOR)(picture("RGB", 50)), reference(picture("RGB", 50)))


@pytest.mark.parametrize(
    "augment",
    [
        AugmentConfig(scale=(0.08, 1.0)),
        AugmentConfig(scale=(0.08, 1.0), color_jitter=0.4, reprob=1.0),
        AugmentConfig(scale=(0.2, 1.0), auto_augment="rand-m9-n2-mstd0.5"),
    ],
)
def test_the_training_transform_equals_timm(augment: AugmentConfig) -> None:
    reference = create_transform(
        (3, 32, 32),
        is_training=True,
        interpolation="bilinear",
        mean=COLOR.mean,
        std=COLOR.std,
        scale=augment.scale,
        ratio=augment.ratio,
        hflip=augment.hflip,
        color_jitter=augment.color_jitter or None,
        auto_augment=augment.auto_augment,
        re_prob=augment.reprob,
        re_mode=augment.remode,
    )
    results = []
    for transform in (train_transform(COLOR, augment), reference):
        with preserve_random_state():
            seed_from_draw(0, Draw(0, 5))
            results.append(transform(picture("RGB", 50)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("size", [28, 40, 20])
def test_without_a_crop_only_the_size_changes(size: int) -> None:
    image = picture("L", size)
    plain = train_transform(GRAY, AugmentConfig(hflip=0.0))(image)
    assert plain.shape == (1, 28, 28)
    torch.testing.assert_close(plain, eval_transform(GRAY)(image))


@pytest.mark.parametrize(("mode", "config"), [("L", GRAY), ("RGB", COLOR)])
@pytest.mark.parametrize(
    "augment",
    [
        AugmentConfig(three_augment=True, color_jitter=0.3),
        AugmentConfig(auto_augment="rand-m10-n4"),
        AugmentConfig(auto_augment="original"),
        AugmentConfig(scale=(0.3, 1.0), vflip=0.5, color_jitter=0.4, reprob=1.0, remode="const"),
    ],
)
def test_every_policy_works_for_gray_and_color_images(mode: str, config: ImageConfig, augment: AugmentConfig) -> None:
    transform = train_transform(config, augment)
    results = []
    for number in range(30):
        with preserve_random_state():
            seed_from_draw(0, Draw(0, number))
            results.append(transform(picture(mode, config.size)))
    assert {tuple(result.shape) for result in results} == {(config.in_chans, config.size, config.size)}
    assert len({result.numpy().tobytes() for result in results}) > 5


@pytest.mark.parametrize("policy", ["nonsense", "rand-q9"])
def test_an_unknown_policy_is_refused(policy: str) -> None:
    with pytest.raises(UserError, match=r"data.augment.auto_augment"):
        train_transform(COLOR, AugmentConfig(auto_augment=policy))

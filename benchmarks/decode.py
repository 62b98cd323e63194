"""Compare the loader with bare loops over the same JPEG files at 224 px, and decoders with each other.

    python -m benchmarks.decode [--rounds 5] [--images 192]

One bare loop uses timm's policy, as the loader does; the other uses torchvision's transforms throughout. Three more
loops only decode and crop: with Pillow, as the loader does; with torchvision's decoder; and with Pillow's `draft`,
which decodes JPEG at a fraction of its size and gives other pixels. All run in this process with one thread.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.data.transforms_factory import transforms_imagenet_train
from torchvision import transforms as T
from torchvision.io import ImageReadMode, decode_image

from benchmarks.interleave import interleave, ratios, report
from sinkablate.config import AugmentConfig, ImageConfig, SourceConfig
from sinkablate.data.datamodule import ImageData
from sinkablate.data.shards import write_shards

BATCH = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def write_folder(root: Path, count: int) -> list[Path]:
    """Write JPEG files of 500 x 375 pixels, the usual size in ImageNet, as detailed as photographs (about 100 kB)."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((500, 375))
        noise = rng.normal(0, 12, (375, 500, 3))
        path = root / "train" / str(number % 4) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)).save(path, quality=90)
        paths.append(path)
    return paths


def bare(paths: list[Path], transform: Callable[[Image.Image], torch.Tensor]) -> Callable[[], object]:
    """A loop without a loader that decodes, transforms and batches all files."""

    def loop() -> None:
        for start in range(0, len(paths), BATCH):
            torch.stack([transform(Image.open(path).convert("RGB")) for path in paths[start : start + BATCH]])

    return loop


def decoders(paths: list[Path]) -> dict[str, Callable[[], object]]:
    """Loops that decode and crop all files, by the name of the decoder."""
    crop = T.RandomResizedCrop(224, interpolation=T.InterpolationMode.BICUBIC)

    def draft(path: Path) -> Image.Image:
        image = Image.open(path)
        image.draft("RGB", (224, 224))
        return image.convert("RGB")

    return {
        "Pillow": lambda: [crop(Image.open(path).convert("RGB")) for path in paths],
        "torchvision": lambda: [crop(decode_image(str(path), mode=ImageReadMode.RGB)) for path in paths],
        "Pillow, draft": lambda: [crop(draft(path)) for path in paths],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=192)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        paths = write_folder(root / "images", args.images)
        write_shards(str(root / "images"), str(root / "shards"), split="train", samples_per_shard=64)
        shards = f"{root}/shards/train-{{0000..{(args.images - 1) // 64:04d}}}.tar"
        data = ImageData(
            SourceConfig(format="shards", train=shards, val=shards, num_classes=4),
            ImageConfig(size=224, in_chans=3, mean=MEAN, std=STD),
            AugmentConfig(scale=(0.08, 1.0), auto_augment="rand-m10-n2"),
            batch_size=BATCH,
        )
        data.setup("fit")
        loader = data.train_dataloader()
        policy = transforms_imagenet_train(
            224,
            scale=(0.08, 1.0),
            color_jitter=None,
            auto_augment="rand-m10-n2",
            interpolation="bicubic",
            mean=MEAN,
            std=STD,
            normalize=True,
        )
        torchvision_policy = T.Compose(
            [
                T.RandomResizedCrop(224, interpolation=T.InterpolationMode.BICUBIC),
                T.RandomHorizontalFlip(),
                T.RandAugment(2, 10),
                T.ToTensor(),
                T.Normalize(MEAN, STD),
            ]
        )
        times = interleave(
            {
                "loader": lambda: sum(1 for _ in loader),
                "bare, timm's policy": bare(paths, policy),
                "bare, torchvision": bare(paths, torchvision_policy),
            },
            args.rounds,
        )
        of_decoders = interleave(decoders(paths), args.rounds)
    print(f"loader {args.images / statistics.median(times['loader']):.0f} images/s")
    for name, ratio in ratios(times, "loader").items():
        if name != "loader":
            print(f"{name}: the loader is {ratio:.3f} times as fast (target: >= 0.9)")
    report("Decoding and cropping", of_decoders, "Pillow")


if __name__ == "__main__":
    main()

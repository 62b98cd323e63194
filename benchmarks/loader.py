"""Compare the throughput of the embedded loader with that of the default model, in images per second.

python -m benchmarks.loader [--rounds 5]
"""

import argparse
import statistics

import torch
import torch.nn.functional as F

from benchmarks.interleave import interleave
from sinkablate.config import AttentionConfig, BackboneConfig
from sinkablate.data.datamodule import ImageData
from sinkablate.vit.backbone import build_backbone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    data = ImageData()
    data.setup("fit")
    loader = data.train_dataloader()
    model = build_backbone(
        BackboneConfig(registers=4, attention=AttentionConfig(gate="headwise")),
        num_classes=10,
        in_chans=1,
        img_size=28,
        seed=0,
    )
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batch = next(iter(loader))
    count = 40

    def load() -> None:
        for number, _ in enumerate(loader):
            if number == count:
                break

    def train() -> None:
        for _ in range(count):
            optimizer.zero_grad()
            F.cross_entropy(model(batch.image), batch.target).backward()
            optimizer.step()

    times = interleave({"loader": load, "model": train}, args.rounds)
    images = count * len(batch.image)
    speed = {name: images / statistics.median(side) for name, side in times.items()}
    ratio = statistics.median(slow / fast for slow, fast in zip(times["model"], times["loader"], strict=True))
    print(f"loader {speed['loader']:.0f}, model {speed['model']:.0f} images/s: {ratio:.1f} times (target: >= 5)")


if __name__ == "__main__":
    main()

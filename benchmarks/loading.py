"""Compare loading a ViT-L from a safetensors file with timm's own loading of it: time and peak memory.

python -m benchmarks.loading
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from sinkablate.config import BackboneConfig
from sinkablate.vit.backbone import build_backbone

NAME = "vit_large_patch14_dinov2"
SIZE = 518
ROUNDS = 3


def load_with_timm(path: str) -> torch.nn.Module:
    """Load the file with timm."""
    return timm.create_model(NAME, img_size=SIZE, num_classes=0, checkpoint_path=path)


def load_with_sinkablate(path: str) -> torch.nn.Module:
    """Load the file with this package."""
    return build_backbone(BackboneConfig(name=NAME, checkpoint=path), num_classes=0, in_chans=3, img_size=SIZE)


LOADERS = {"timm": load_with_timm, "sinkablate": load_with_sinkablate}


def measured(loader: str, path: str) -> tuple[float, float]:
    """Load once in this process; return processor seconds, and the increase of the peak memory in bytes."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    LOADERS[loader](path)
    return time.process_time() - start, 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def main() -> None:
    """Alternate between both loaders, each in a new process, and print the medians."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "weights.safetensors")
        save_file(timm.create_model(NAME, img_size=SIZE, num_classes=0).state_dict(), path)
        weights = Path(path).stat().st_size
        rounds = []
        for _ in range(ROUNDS):
            numbers = {}
            for loader in LOADERS:
                command = [sys.executable, "-m", "benchmarks.loading", loader, path]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                numbers[loader] = [float(number) for number in done.stdout.split()]
            rounds.append(numbers)
    for position, (quantity, unit) in enumerate({"processor time, s": 1.0, "peak memory / weights": weights}.items()):
        medians = {name: sorted(numbers[name][position] for numbers in rounds)[ROUNDS // 2] / unit for name in LOADERS}
        print(f"{quantity}: " + ", ".join(f"{name} {value:.2f}" for name, value in medians.items()))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(*measured(*sys.argv[1:]))
    else:
        main()

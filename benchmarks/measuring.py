"""Count the operations of the measuring pass, and how often the host waits for a GPU, without running them.

python -m benchmarks.measuring [--model vit_small_patch14_dinov2] [--img_size 224] [--batch 32]
"""

import argparse
import warnings
from collections.abc import Callable
from unittest.mock import patch

import timm
import torch
from torch import Tensor, nn

from benchmarks.interleave import DEVICE
from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics import recorder as recorder_module
from sinkablate.diagnostics.heads import head_quantities
from sinkablate.diagnostics.recorder import Recorder
from sinkablate.diagnostics.tap import Consumer, Tap
from sinkablate.plan.operations import Work, count_work
from sinkablate.vit.anatomy import features

THRESHOLDS = ThresholdConfig()


def make_model(name: str, img_size: int) -> nn.Module:
    """Build an untrained model whose attention is not uniform."""
    torch.manual_seed(0)
    with torch.device(DEVICE):
        model = timm.create_model(name, img_size=img_size, in_chans=3, num_classes=0).eval()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.mul_(4)  # columns of an untrained model are almost tied
    return model


def run_tap(model: nn.Module, images: Tensor, consumer: Consumer) -> None:
    """Run the model once and pass its blocks to a consumer, without the check of the first batch of a run."""
    with torch.no_grad(), Tap(model, consumer, rebuild=False) as tap:
        tap.run(images)


def measuring_pass(model: nn.Module, images: Tensor, recorder: Recorder) -> None:
    """Measure every block of the model; the results stay on its device."""
    recorder.reset()
    run_tap(model, images, recorder)
    recorder.finish()


def compiled_measuring_pass(model: nn.Module, images: Tensor, backend: str = "inductor") -> Callable[[], None]:
    """Return a measuring pass in which everything after the reduction of the weights is compiled."""
    recorder, compiled = Recorder(THRESHOLDS), torch.compile(head_quantities, backend=backend, dynamic=False)

    def run() -> None:
        with patch.object(recorder_module, "head_quantities", compiled):
            measuring_pass(model, images, recorder)

    return run


def synchronizations(run: Callable[[], object]) -> int:
    """Return how often the host waits for the GPU."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


def operations(model: nn.Module, shape: tuple[int, ...]) -> tuple[Work, Work]:
    """Count the operations of a forward pass on images of this shape, and of a measuring pass."""
    memory_mib = recorder_module.GPU_MEMORY_MIB

    def forward(bare: nn.Module) -> None:
        with torch.no_grad():
            features(bare, torch.empty(shape, device="meta"))

    def measured(bare: nn.Module) -> None:
        measuring_pass(bare, torch.empty(shape, device="meta"), Recorder(THRESHOLDS, memory_mib))

    return count_work(model, forward, "meta"), count_work(model, measured, "meta")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_small_patch14_dinov2")
    parser.add_argument("--img_size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    model = make_model(args.model, args.img_size)
    forward, measured = operations(model, (args.batch, 3, args.img_size, args.img_size))
    blocks = len(model.blocks)
    print(
        f"{args.model}, {args.img_size} px, batch {args.batch}: measuring adds "
        f"{(measured.launches - forward.launches) / blocks:.1f} operations to the {forward.launches / blocks:.1f} of a "
        f"block (target: <= 90); the host waits {measured.synchronizations:.0f} times (target: 0)"
    )


if __name__ == "__main__":
    main()

"""Compare a forward pass with test-time registers to a plain one, and to one with as many trained registers.

python -m benchmarks.test_time_registers [--model vit_small_patch14_dinov2] [--img_size 224] [--batch 8] [--rounds 15]
"""

import argparse

import timm
import torch

from benchmarks.interleave import DEVICE, interleave, report
from sinkablate.vit.test_time_registers import add_registers

LIMIT = 1.1
"""Largest accepted ratio to the plain forward pass."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_small_patch14_dinov2")
    parser.add_argument("--img_size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--count", type=int, default=1, help="number of registers")
    parser.add_argument("--top", type=int, default=10, help="number of neurons in each block")
    args = parser.parse_args()
    shape = {"num_classes": 0, "img_size": args.img_size}
    models = {name: timm.create_model(args.model, **shape) for name in ("plain", "test-time registers")}
    models["trained registers"] = timm.create_model(args.model, **shape, reg_tokens=args.count)
    treated = models["test-time registers"]
    add_registers(treated, args.count, {block: range(args.top) for block in range(len(treated.blocks))})
    images = torch.randn(args.batch, 3, args.img_size, args.img_size, device=DEVICE)

    def forward(model: torch.nn.Module):
        @torch.inference_mode()
        def run() -> None:
            model(images)

        return run

    times = interleave({name: forward(model.to(DEVICE).eval()) for name, model in models.items()}, args.rounds)
    report(
        f"{args.model}, {args.img_size} px, batch {args.batch}, {DEVICE}, {torch.get_num_threads()} threads, "
        f"{args.count} registers, {args.top} neurons in every block",
        times,
        "plain",
        {"test-time registers": LIMIT},
    )


if __name__ == "__main__":
    main()

"""Compare a forward pass of a simulated W8A8 model with one in full precision.

    python -m benchmarks.quantization [--rounds 10] [--model vit_small_patch16_224] [--batch 8]

A pass of the simulation includes quantizing the weights.
"""

import argparse
from collections.abc import Callable

import timm
import torch

from benchmarks.interleave import DEVICE, interleave, report
from sinkablate.evaluate.quantized import Simulation, calibrate
from sinkablate.evaluate.quantizer import Scheme

GRANULARITIES = ("static", "dynamic", "token")
LIMIT = 2.0
"""Largest ratio of the time of a simulated pass to that of a plain one."""


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    model = timm.create_model(args.model).to(DEVICE).eval()
    images = torch.randn(args.batch, *timm.data.resolve_data_config(model=model)["input_size"], device=DEVICE)
    calibration = calibrate(model, [images], model, 99.99)

    def simulated(scheme: Scheme) -> Callable[[], object]:
        def run() -> None:
            with Simulation(model, scheme, calibration):
                model(images)

        return run

    schemes = [Scheme(8, 8, granularity) for granularity in GRANULARITIES]
    sides: dict[str, Callable[[], object]] = {"full precision": lambda: model(images)}
    sides |= {scheme.name: simulated(scheme) for scheme in schemes}
    times = interleave(sides, args.rounds)
    title = f"{args.model}, batch {args.batch}, {DEVICE}, {torch.get_num_threads()} threads"
    report(title, times, "full precision", {scheme.name: LIMIT for scheme in schemes})


if __name__ == "__main__":
    main()

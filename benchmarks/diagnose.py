"""Compare the measuring pass with the direct method of public scripts, and with a plain forward pass.

    python -m benchmarks.diagnose [--model vit_small_patch14_dinov2] [--img_size 224] [--batch 4] [--rounds 3]
    python -m benchmarks.diagnose --memory [--img_size 518] [--batch 8]

The direct method computes u of every head at full width (B, H, N, D), the N x N Gram matrix of the head's update and
all its eigenvalues, both in float64. Both sides use the same captured q, k and v, and their values are compared.
`--memory` prints the peak memory of a process that only runs the model, and of one that measures it.
"""

import argparse
import math
import resource
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.interleave import DEVICE, interleave, ratios, report
from benchmarks.measuring import THRESHOLDS, make_model, measuring_pass, run_tap
from sinkablate.diagnostics.histograms import histogram_table
from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.diagnostics.recorder import Recorder
from sinkablate.diagnostics.tap import Tap
from sinkablate.diagnostics.view import BlockView
from sinkablate.vit.anatomy import features


class Direct:
    """Compute the arrays that `per_image.npz` shares with the public scripts, directly from their definitions."""

    def __init__(self) -> None:
        self.blocks: list[dict[str, Tensor]] = []

    def attention(self, view: BlockView) -> None:
        weights = view.weights()
        u = torch.einsum("hcd,bhnd->bhnc", view.out_map, view.v)
        update = weights @ u
        columns = weights.mean(-2)
        sink = columns.argmax(-1)
        at_sink = weights.gather(-1, sink[..., None, None].expand(*weights.shape[:-1], 1)).squeeze(-1)
        norms, raw = u.norm(dim=-1), view.v.norm(dim=-1)
        routed, sizes = at_sink >= THRESHOLDS.routed_min, update.norm(dim=-1)
        residual = view.residual.norm(dim=-1).mean(-1)[:, None]
        wide = update.double()
        energy = torch.linalg.eigvalsh(wide @ wide.mT)
        self.blocks.append(
            {
                "sink_idx": sink,
                "mass": columns.amax(-1),
                "routed_frac": routed.float().mean(-1),
                "min_a": at_sink.amin(-1),
                "cond_mass": (at_sink * routed).sum(-1) / routed.sum(-1),
                "row_mass": weights.sum(-1).mean(-1),
                "entropy": torch.special.entr(weights).sum(-1).mean(-1) / math.log(weights.shape[-1]),
                "ratio_out": ratio(norms, sink),
                "ratio_head": ratio(raw, sink),
                "sink_value_norm": norms.gather(-1, sink[..., None]).squeeze(-1),
                "stable_rank": energy.sum(-1) / energy[..., -1],
                "rank1_energy": energy[..., -1] / energy.sum(-1),
                "update_norm": sizes.mean(-1),
                "rel_update": sizes.mean(-1) / residual,
                "quiet_frac": (sizes <= THRESHOLDS.quiet_max * norms.mean(-1)[..., None]).float().mean(-1),
            }
        )

    def output(self, index: int, x: Tensor) -> None:
        """Ignore the output of a block."""


def ratio(norms: Tensor, sink: Tensor) -> Tensor:
    """Norm at the sink divided by the mean norm of the other tokens."""
    at = norms.gather(-1, sink[..., None]).squeeze(-1)
    return at / ((norms.sum(-1) - at) / (norms.shape[-1] - 1))


def largest_difference(direct: Direct, recorder: Recorder, count: int) -> str:
    """Describe the largest relative difference over all shared quantities; a share can differ by a whole query."""
    heads = recorder.take(np.arange(count)).heads

    def difference(ours: Tensor, theirs: Tensor) -> float:
        undefined = ours.isnan() & theirs.isnan()
        relative = (ours - theirs).abs() / theirs.abs().clamp_min(1e-9)
        return float(relative.masked_fill(undefined, 0).nan_to_num(torch.inf).max())

    largest = {
        name: max(
            difference(torch.from_numpy(heads[name][:, place]), block[name].cpu())
            for place, block in enumerate(direct.blocks)
        )
        for name in direct.blocks[0]
    }
    shares = {name: largest.pop(name) for name in ("routed_frac", "quiet_frac")}
    name, share = max(largest, key=largest.__getitem__), max(shares, key=shares.__getitem__)
    return (
        f"{largest[name]:.1e} ({name}), shares of queries by {shares[share]:.1e} ({share}; one query at its limit is "
        f"1 / (number of such queries))"
    )


def compare(model: nn.Module, images: Tensor, rounds: int, title: str) -> None:
    recorder, direct = Recorder(THRESHOLDS), Direct()

    def directly() -> None:
        direct.blocks.clear()
        run_tap(model, images, direct)

    with measurement_mode(model):
        measuring_pass(model, images, recorder)
        records = recorder.take(np.arange(len(images)))
        sides: dict[str, Callable[[], object]] = {
            "ours": lambda: measuring_pass(model, images, recorder),
            "direct": directly,
            "forward": lambda: features(model, images),
            "histograms of norms": lambda: histogram_table(records),
        }
        times = interleave(sides, rounds)
    report(title, times, "ours", {"histograms of norms": 0.02})
    faster, slower = ratios(times, "ours")["direct"], ratios(times, "forward")["ours"]
    print(
        f"  {faster:.1f} times as fast as the direct method, {slower:.2f} times a plain forward; values "
        f"differ by {largest_difference(direct, recorder, len(images))}"
    )


def peak(args: argparse.Namespace, measured: bool) -> None:
    """Run one batch twice and print this process's peak memory in MiB."""
    model, images = make(args)
    with measurement_mode(model):
        for _ in range(2):
            if measured:
                recorder = Recorder(THRESHOLDS)
                with Tap(model, recorder) as tap:
                    tap.run(images)
            else:
                model.forward_features(images)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def memory(args: argparse.Namespace) -> None:
    base = [sys.executable, "-m", "benchmarks.diagnose", "--model", args.model, "--img_size", str(args.img_size)]
    for batch in (args.batch, 2 * args.batch):
        forward, ours = (
            float(
                subprocess.run(
                    [*base, "--batch", str(batch), "--peak", kind], check=True, text=True, capture_output=True
                ).stdout
            )
            for kind in ("forward", "ours")
        )
        print(
            f"{args.model}, {args.img_size} px, batch {batch}: forward {forward:.0f} MiB, measured {ours:.0f} MiB, "
            f"{ours - forward:+.0f} MiB (target: <= 1024)"
        )


def make(args: argparse.Namespace) -> tuple[nn.Module, Tensor]:
    model = make_model(args.model, args.img_size)
    return model, torch.randn(args.batch, 3, args.img_size, args.img_size, device=DEVICE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_small_patch14_dinov2")
    parser.add_argument("--img_size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", choices=["forward", "ours"])
    args = parser.parse_args()
    if args.peak:
        peak(args, args.peak == "ours")
    elif args.memory:
        memory(args)
    else:
        compare(
            *make(args),
            args.rounds,
            f"{args.model}, {args.img_size} px, batch {args.batch}, {DEVICE}, {torch.get_num_threads()} threads",
        )


if __name__ == "__main__":
    main()

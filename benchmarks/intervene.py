"""Compare edits of a head by replay from its block with one full forward pass per edit.

    python -m benchmarks.intervene [--model vit_small_patch16_224] [--rounds 5]

Both sides make the same edits on the same image and arrive at the same final tokens. Results are per block and on
average.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor

from benchmarks.interleave import interleave
from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.probe import probe
from sinkablate.diagnostics.rules import rule_named
from sinkablate.intervene.changes import Change
from sinkablate.intervene.editor import Editor, updates
from sinkablate.intervene.edits import all_edits
from sinkablate.intervene.effects import no_judge
from sinkablate.intervene.replay import ActivationCache, Replay
from sinkablate.intervene.selection import Plan
from sinkablate.intervene.values import collect
from sinkablate.vit.anatomy import block_parts

HEAD = 1


def plain(model: Any, image: Tensor, block: int, edits: list[Change]) -> Tensor:
    """Run a full forward pass for each edit, in which a hook adds the change to the output of attention."""
    parts = block_parts(model, block)
    w = parts.out_weight.unflatten(1, (parts.num_heads, -1))
    found = []
    for edit in edits:
        change = edit.change @ w[:, edit.changed_head].T
        handle = parts.attn.register_forward_hook(lambda _, _args, out, change=change: out + change)
        found.append(model.forward_features(image))
        handle.remove()
    return torch.cat(found)


def replayed(model: Any, replay: Replay, cache: ActivationCache, block: int, edits: list[Change]) -> Tensor:
    """Replay the edits from the block onward, together with an unedited copy."""
    return model.norm(replay.from_block(cache, block, *updates(model, cache, block, edits)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(0)
    model: Any = timm.create_model(args.model, num_classes=0).eval()
    images = torch.randn(2, *model.default_cfg["input_size"])
    depth = len(model.blocks)
    with torch.no_grad():
        records, _ = probe(model, images, np.arange(2), ThresholdConfig())
        plan = Plan.of_records(
            records, rule_named("causal", ThresholdConfig()), [(b, HEAD) for b in range(depth)], everywhere=True, seed=0
        )
        editor = Editor(
            model,
            plan,
            collect(model, plan, [image[None] for image in images]),
            [edit for edit in all_edits() if not edit.group],
            no_judge,
        )
        replay = Replay(model, range(depth))
        cache = replay.run_with_cache(images[:1])
        gains = []
        print(f"{args.model}, one image, {torch.get_num_threads()} threads, median of {args.rounds} interleaved rounds")
        for block in range(depth):
            edits = editor.changes(cache, 0, block)
            ours, theirs = (replayed(model, replay, cache, block, edits), plain(model, images[:1], block, edits))
            worst = float((ours[1:] - theirs).abs().max())
            sides: dict[str, Callable[[], object]] = {
                "plain": lambda b=block, e=edits: plain(model, images[:1], b, e),
                "replay": lambda b=block, e=edits: replayed(model, replay, cache, b, e),
                "one replay": lambda b=block, e=edits: replay.from_block(
                    cache, b, cache.views[b].update.expand(1, -1, -1)
                ),
            }
            times = interleave(sides, args.rounds)
            gain, per_edit = (
                statistics.median(a / b for a, b in zip(times[x], times[y], strict=True))
                for x, y in (("plain", "replay"), ("replay", "one replay"))
            )
            gains.append(gain)
            print(
                f"  block {block:2d}: {len(edits)} edits {gain:5.2f} times as fast; {per_edit / len(edits):.2f} of a "
                f"replay per edit; largest difference {worst:.0e}"
            )
    print(f"mean over blocks {statistics.mean(gains):.2f} (target: >= 2)")


if __name__ == "__main__":
    main()

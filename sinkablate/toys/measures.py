"""What a toy model does with its sink, through the same tap, quantities and rules as every other model."""

import numpy as np
import torch
from torch import Tensor

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.geometry import spectral_spikes
from sinkablate.diagnostics.labels import label_all
from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.diagnostics.records import Recorder
from sinkablate.diagnostics.rules import ADAPTIVE_RULE, VERDICTS
from sinkablate.diagnostics.tap import Tap
from sinkablate.diagnostics.view import BlockView
from sinkablate.toys.model import ToyTransformer
from sinkablate.toys.tasks import ToyTask


class _Watcher(Recorder):
    """Records as in every measurement, and what is asked of the toys beside it."""

    def __init__(self, task: ToyTask, tokens: Tensor) -> None:
        super().__init__(ThresholdConfig())
        self.task, self.tokens = task, tokens
        self.found: list[dict[str, float]] = []

    def attention(self, view: BlockView) -> None:
        """One block's attention."""
        super().attention(view)
        watch = null_token if self.task.config.task == "nop" else source_token
        self.found.append(watch(view, self.task, self.tokens))


def null_token(view: BlockView, task: ToyTask, tokens: Tensor) -> dict[str, float]:
    """Attention to the null token (column 0) of the tokens that rest and of the others, and its projected value norm
    over that of the drawn tokens."""
    to_null = view.weights()[:, 0, view.layout.num_prefix :, 0]
    rests = task.rests(tokens)
    norms = torch.linalg.vector_norm(torch.einsum("hcd,bhnd->bhnc", view.out_map, view.v), dim=-1)[:, 0]
    drawn = norms[:, view.layout.num_prefix : view.layout.num_tokens]
    return {
        "attention_nop": float(to_null[rests].mean()),
        "attention_active": float(to_null[~rests].mean()),
        "value_ratio": float(norms[:, 0].mean() / drawn.mean()),
    }


def source_token(view: BlockView, task: ToyTask, tokens: Tensor) -> dict[str, float]:
    """Mean attention that the strongest column and the source token receive from all queries."""
    columns = view.weights().mean(-2)[:, 0]
    at = task.source(tokens) + view.layout.num_prefix
    return {
        "inflow_max": float(columns.amax(-1).mean()),
        "inflow_source": float(columns.gather(-1, at[:, None]).mean()),
        "inflow_is_source": float((columns.argmax(-1) == at).double().mean()),
    }


@torch.no_grad()
def measures(model: ToyTransformer, task: ToyTask, tokens: Tensor) -> dict[str, float]:
    """Numbers under toy/: per block, and of the block with the largest inflow without a suffix.

    `toy/label_<verdict>` are shares of the (sequence, block) pairs with an event of rule `adaptive`, which is what a
    toy's one head is judged by.
    """
    watcher = _Watcher(task, tokens)
    with measurement_mode(model), Tap(model, watcher) as tap:
        tap.run(tokens)
    records = watcher.take(np.arange(len(tokens)))
    labels = label_all(records, ThresholdConfig())[ADAPTIVE_RULE]
    largest, spike = spectral_spikes(model, list(range(len(model.blocks))))
    blocks = []
    for index, found in enumerate(watcher.found):
        quantities = {name: float(np.nanmedian(records.heads[name][:, index])) for name in ("stable_rank", "mass")}
        if "value_ratio" not in found:
            quantities["value_ratio"] = float(np.nanmedian(records.heads["ratio_out"][:, index]))
        counts = {f"label_{verdict.name.lower()}": float((labels[:, index] == verdict).mean()) for verdict in VERDICTS}
        blocks.append(
            {
                **found,
                **quantities,
                **counts,
                "query_key_sigma1": float(largest[index, 0]),
                "spectral_spike": float(spike[index, 0]),
            }
        )
    best = max(blocks, key=lambda block: block.get("inflow_source", 0.0))
    out = {f"toy/{name}": value for name, value in best.items()}
    if len(blocks) > 1:
        out |= {
            f"toy/{name}/block{index}": value for index, block in enumerate(blocks) for name, value in block.items()
        }
    return out


def verdict(numbers: dict[str, float]) -> str:
    """The commonest label of the sink's block by rule `adaptive`; `none` where fewer than half have an event."""
    shares = {v.name.lower(): numbers.get(f"toy/label_{v.name.lower()}", 0.0) for v in VERDICTS}
    name = max(shares, key=lambda label: shares[label])
    return name if sum(shares.values()) >= 0.5 else "none"

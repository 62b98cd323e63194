"""Measures of a toy model's sink, with the same tap, quantities and rules as for every other model."""

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
    """Records the usual quantities, and those that only toys have."""

    def __init__(self, task: ToyTask, tokens: Tensor) -> None:
        super().__init__(ThresholdConfig())
        self.task, self.tokens = task, tokens
        self.blocks: list[dict[str, float]] = []

    def attention(self, view: BlockView) -> None:
        """Record the attention of a block."""
        super().attention(view)
        measure = null_token if self.task.config.task == "nop" else source_token
        self.blocks.append(measure(view, self.task, self.tokens))


def null_token(view: BlockView, task: ToyTask, tokens: Tensor) -> dict[str, float]:
    """Measure the null token (column 0) of a NOP toy.

    Returns:
        The mean attention to it from tokens that must stay unchanged and from active tokens, and the norm of its
        projected value divided by the mean over the drawn tokens.
    """
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
    """Return the mean attention that the strongest column and the source token of a broadcast toy receive."""
    columns = view.weights().mean(-2)[:, 0]
    source = task.source(tokens) + view.layout.num_prefix
    return {
        "inflow_max": float(columns.amax(-1).mean()),
        "inflow_source": float(columns.gather(-1, source[:, None]).mean()),
        "inflow_is_source": float((columns.argmax(-1) == source).double().mean()),
    }


@torch.no_grad()
def measures(model: ToyTransformer, task: ToyTask, tokens: Tensor) -> dict[str, float]:
    """Return the scalars under `toy/`, for every block and, without a suffix, for the block with the largest inflow.

    `toy/label_<verdict>` is the fraction of (sequence, block) pairs with that label by the rule `adaptive`, the
    rule for the single head of a toy.
    """
    watcher = _Watcher(task, tokens)
    with measurement_mode(model), Tap(model, watcher) as tap:
        tap.run(tokens)
    records = watcher.take(np.arange(len(tokens)))
    labels = label_all(records, ThresholdConfig())[ADAPTIVE_RULE]
    largest, spike = spectral_spikes(model, list(range(len(model.blocks))))
    blocks = []
    for index, measured in enumerate(watcher.blocks):
        quantities = {name: float(np.nanmedian(records.heads[name][:, index])) for name in ("stable_rank", "mass")}
        if "value_ratio" not in measured:
            quantities["value_ratio"] = float(np.nanmedian(records.heads["ratio_out"][:, index]))
        counts = {f"label_{verdict.name.lower()}": float((labels[:, index] == verdict).mean()) for verdict in VERDICTS}
        blocks.append(
            {
                **measured,
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
    """Return the most frequent label of the sink's block by rule `adaptive`; `none` if most pairs have no label."""
    shares = {v.name.lower(): numbers.get(f"toy/label_{v.name.lower()}", 0.0) for v in VERDICTS}
    name = max(shares, key=lambda label: shares[label])
    return name if sum(shares.values()) >= 0.5 else "none"

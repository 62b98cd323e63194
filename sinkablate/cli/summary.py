"""The numbers that a finished run is summarized by: `summary.json`."""

import time
from typing import TYPE_CHECKING, Any

import torch

from sinkablate.callbacks.preemption import Preemption
from sinkablate.diagnostics.rules import rules
from sinkablate.process.memory import peak_memory_gib

if TYPE_CHECKING:
    from sinkablate.cli.lightning import Cli


def fit_summary(cli: "Cli") -> dict[str, Any]:
    """Metrics, sinks, speed and size at the end of a `fit`."""
    trainer, init = cli.trainer, cli.config_init[cli.verb]
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
    sinks = init.diagnostics.latest | init.diagnostics.latest_counts()
    backbone = cli.model.backbone
    usage = getattr(cli.datamodule, "usage", None)  # a toy draws its data
    data = usage.summary(trainer) if usage else {}
    return (
        metrics
        | init.stability.totals()
        | sinks
        | data
        | {
            "rules": [str(rule) for rule in rules(init.diagnostics.thresholds)],
            "images_per_second": cli.throughput.images_per_second,
            "wall_seconds": time.time() - cli.started,
            "peak_memory_gib": peak_memory_gib(),
            "parameters": sum(p.numel() for p in backbone.parameters()),
            "match_difference": getattr(backbone, "match_difference", 0),
            "restarts": next(c.restarts for c in trainer.callbacks if isinstance(c, Preemption)),  # type: ignore[attr-defined]
            "steps": trainer.global_step,
            "epochs": trainer.current_epoch,
            "name": cli.name,
            "device": trainer.strategy.root_device.type,
            "world_size": trainer.world_size,
            "threads": torch.get_num_threads(),
        }
    )

"""The numbers that summarize a finished run, as written to `summary.json`."""

from typing import Any

import lightning as L
import torch

from sinkablate.callbacks.preemption import Preemption
from sinkablate.callbacks.start_drift import StartDrift
from sinkablate.diagnostics.rules import rules
from sinkablate.process.memory import peak_memory_gib
from sinkablate.vit.positions import position_summary
from sinkablate.vit.weights_origin import loading_summary


def fit_summary(
    trainer: L.Trainer, model: Any, datamodule: Any, init: Any, *, name: str, images_per_second: float, seconds: float
) -> dict[str, Any]:
    """Return metrics, sinks, speed and size at the end of a `fit`.

    Args:
        trainer: The trainer, after training.
        model: The LightningModule.
        datamodule: The data module.
        init: The config with its classes instantiated; `diagnostics` and `stability` are callbacks.
        name: Name of the run.
        images_per_second: Training throughput.
        seconds: Wall time since the command started.
    """
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
    sinks = init.diagnostics.latest | init.diagnostics.latest_counts()
    usage = getattr(datamodule, "usage", None)  # a toy generates its data
    data = usage.summary(trainer) if usage else {}
    restarts = next(call.restarts for call in trainer.callbacks if isinstance(call, Preemption))  # type: ignore[attr-defined]
    drift = next(call.drift for call in trainer.callbacks if isinstance(call, StartDrift))  # type: ignore[attr-defined]
    return (
        metrics
        | init.stability.totals()
        | sinks
        | data
        | ({"drift": drift} if drift else {})
        | position_summary(model.backbone)
        | loading_summary(model.backbone)
        | {
            "rules": [str(rule) for rule in rules(init.diagnostics.thresholds)],
            "images_per_second": images_per_second,
            "wall_seconds": seconds,
            "peak_memory_gib": peak_memory_gib(),
            "parameters": sum(p.numel() for p in model.backbone.parameters()),
            "match_difference": getattr(model.backbone, "match_difference", 0),
            "restarts": restarts,
            "steps": trainer.global_step,
            "epochs": trainer.current_epoch,
            "name": name,
            "device": trainer.strategy.root_device.type,
            "world_size": trainer.world_size,
            "threads": torch.get_num_threads(),
        }
    )

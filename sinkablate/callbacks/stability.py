"""Log the stability of training: gradient norm, spikes of loss and gradient, non-finite steps."""

import math
from collections import deque
from statistics import median
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer

from sinkablate.distributed.sharding import full
from sinkablate.errors import UserError, require_at_least


class Stability(L.Callback):
    """Log `stability/grad_norm` and running counts of loss spikes, gradient spikes and non-finite steps.

    A spike is a value above `factor` times the median of the last `window` values. Values stay on the device between
    two logging steps, so that no other step waits for them.

    Args:
        factor: A loss or gradient norm is a spike above this multiple of the running median.
        window: Number of past steps in the running median.
    """

    def __init__(self, factor: float = 2.0, window: int = 100) -> None:
        if factor <= 1:
            raise UserError(f"stability.factor must be above 1, got {factor}")
        require_at_least(window, 1, "stability.window")
        self.factor = factor
        self.window = window
        self.history: dict[str, deque[float]] = {name: deque(maxlen=window) for name in ("loss", "grad")}
        self.counts = {"loss_spikes": 0, "grad_spikes": 0, "nonfinite_steps": 0}
        self._waiting: dict[str, list[Tensor]] = {"loss": [], "grad": []}
        self._logged_at = 0

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Keep the total gradient norm before clipping."""
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self._waiting["grad"].append(full(torch.nn.utils.get_total_norm(grads).detach()))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss; at logging steps, evaluate and log all values that were kept."""
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        self._waiting["loss"].append(loss.detach())
        step = trainer.global_step  # the same for the micro-batches before the next optimizer step
        if step != self._logged_at and step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._logged_at = step
            last = {name: self._drain(name, trainer) for name in ("loss", "grad")}
            if last["grad"] is not None:
                pl_module.log("stability/grad_norm", last["grad"], batch_size=1)
            pl_module.log_dict(self.totals(), batch_size=1)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Also count the values after the last logging step."""
        latest = [self._drain(name, trainer) for name in ("loss", "grad")]
        if trainer.is_global_zero and any(value is not None for value in latest):
            for logger in trainer.loggers:
                logger.log_metrics(self.totals(), step=trainer.global_step)

    def totals(self) -> dict[str, float]:
        """Return the counts so far under their logged names."""
        return {f"stability/{name}": float(count) for name, count in self.counts.items()}

    def _drain(self, name: str, trainer: L.Trainer) -> float | None:
        """Count the spikes among the waiting values, averaged over ranks, and return the latest value."""
        if not self._waiting[name]:
            return None
        waiting = torch.stack([value.float().to(trainer.strategy.root_device) for value in self._waiting[name]])
        values = trainer.strategy.reduce(waiting, reduce_op="mean").tolist()  # type: ignore[union-attr]
        self._waiting[name].clear()
        past = self.history[name]
        for value in values:
            finite = math.isfinite(value)
            if not finite:
                self.counts["nonfinite_steps"] += name == "grad"
            elif len(past) >= min(10, self.window) and value > self.factor * median(past):
                self.counts[f"{name}_spikes"] += 1
            if finite:
                past.append(value)
        return float(values[-1])

    def state_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers, which a weights-only load accepts."""
        return {
            "history": {k: list(v) for k, v in self.history.items()},
            "counts": dict(self.counts),
            "waiting": {name: _numbers(values) for name, values in self._waiting.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the values and counts of the checkpoint."""
        self.history = {k: deque(v, maxlen=self.window) for k, v in state_dict["history"].items()}
        self.counts = dict(state_dict["counts"])
        self._waiting = {k: [torch.tensor(x) for x in v] for k, v in state_dict["waiting"].items()}


def _numbers(values: list[Tensor]) -> list[float]:
    """Return scalars that may be on a device as numbers, waiting for the device only once."""
    if not values:
        return []
    numbers: list[float] = torch.stack([value.double().to(values[-1].device) for value in values]).tolist()
    return numbers

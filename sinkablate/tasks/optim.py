"""timm's optimizers, parameter groups, and a schedule with linear warm-up and cosine decay."""

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import lightning as L
import torch
from timm.optim import create_optimizer_v2, param_groups_layer_decay, param_groups_weight_decay
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from sinkablate.attention.core import AttentionCore
from sinkablate.config import OptimConfig, RetrofitConfig
from sinkablate.errors import UserError
from sinkablate.tasks.retrofit import added_parameters

FUSED = ("adam", "adamw", "sgd")
WITH_BETAS = ("adam", "lamb", "lion", "nadam", "adan")


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Return parameter groups with and without weight decay, one pair per block if `layer_decay` is set.

    With decay=matrices, weight decay is not applied to one-dimensional parameters (norms, biases, LayerScale), to those
    that timm exempts (positions, CLS, registers), and to the parameters of scores and sinks. With decay=all, the groups
    are the same, and weight decay is applied to each of them.
    """
    groups = _groups_by_name(model, config)
    if config.decay == "all":
        for group in groups:
            group["weight_decay"] = config.weight_decay
    return groups


def _groups_by_name(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Return timm's parameter groups, with weight decay on matrices."""
    exempt: set[str] = set(getattr(model, "no_weight_decay", set)())
    for prefix, module in model.named_modules():
        if isinstance(module, AttentionCore):
            exempt |= {f"{prefix}.{name}" for name in module.no_weight_decay()}
    if config.layer_decay is not None:
        groups: list[dict[str, Any]] = param_groups_layer_decay(
            model, config.weight_decay, no_weight_decay_list=exempt, layer_decay=config.layer_decay
        )
        for group in groups:  # the schedule multiplies the lr of each group; only timm's schedulers use lr_scale
            group["lr"] = config.lr * group["lr_scale"]
        return groups
    return param_groups_weight_decay(model, config.weight_decay, no_weight_decay_list=exempt)


def split_groups(groups: Sequence[dict[str, Any]], added: Collection[nn.Parameter]) -> list[dict[str, Any]]:
    """Split parameter groups into those of pretrained parameters and, after them, those of `added` parameters.

    The key `added` of a group says which of the two it is. Frozen parameters are in no group.
    """
    members = {id(parameter) for parameter in added}
    return [
        group | {"params": part, "added": is_added}
        for is_added in (False, True)
        for group in groups
        if (part := [p for p in group["params"] if (id(p) in members) is is_added])
    ]


def make_optimizer(
    model: nn.Module, config: OptimConfig, more: Sequence[dict[str, Any]] = (), *, added: Collection[str] = ()
) -> Optimizer:
    """Create timm's optimizer for `parameter_groups`, with torch's fused kernel if there is one.

    Args:
        model: The model to train.
        config: Name and settings of the optimizer.
        more: Groups of further parameters.
        added: Names of the parameters that are trained first; if there are any, groups are split (`split_groups`).

    Raises:
        UserError: timm has no such optimizer.
    """
    arguments: dict[str, Any] = {"fused": True} if config.opt in FUSED else {}
    if any(name in config.opt for name in WITH_BETAS):
        arguments["betas"] = config.betas
    groups = [*parameter_groups(model, config), *more]
    try:
        optimizer: Optimizer = create_optimizer_v2(
            split_groups(groups, [model.get_parameter(name) for name in added]) if added else groups,
            opt=config.opt,
            lr=config.lr,
            weight_decay=config.weight_decay,
            **arguments,
        )
    except (ValueError, AssertionError, TypeError) as error:
        raise UserError(f"model.optim.opt={config.opt}: {error}") from error
    # Otherwise a fused optimizer would undo the scaling of gradients itself, in its step, and Lightning refuses to clip
    # gradients that are still scaled (and, with this attribute, also those that never are).
    vars(optimizer).pop("_step_supports_amp_scaling", None)
    return optimizer


def learning_rate(optimizer: Any, group: int, device: torch.device) -> Tensor:
    """Return the learning rate of a parameter group, for logging.

    Lightning would copy a number to the device, and wait for the device to do so; filling a tensor takes no copy.
    """
    return torch.full((), optimizer.param_groups[group]["lr"], device=device)


def warmup_cosine(step: int, total: int, warmup: int, floor: float) -> float:
    """Return the learning rate relative to its peak: linear from 1/warmup to 1, then a half cosine to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - 1 - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def limited_batches(batches: int, limit: int | float) -> int:
    """Return how many of the batches of an epoch `trainer.limit_train_batches` leaves: a number or a share of them."""
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def optimizer_steps(batches: int, epochs: int | None, max_steps: int, accumulated: int) -> int:
    """Return the number of optimizer steps of a run.

    Args:
        batches: Number of batches of an epoch.
        epochs: Number of epochs; None and -1 stand for no limit.
        max_steps: Largest number of steps; -1 stands for no limit.
        accumulated: Number of batches per step; the last step of an epoch may have fewer.

    Raises:
        UserError: The run has no end.
    """
    if epochs in (None, -1):
        if max_steps == -1:
            raise UserError(
                "trainer.max_epochs=-1 needs trainer.max_steps: the learning-rate schedule depends on the last step"
            )
        return max_steps
    steps = math.ceil(batches / accumulated) * (epochs or 0)
    return steps if max_steps == -1 else min(steps, max_steps)


def total_steps(trainer: L.Trainer) -> int:
    """Return the number of optimizer steps of the whole run.

    The number is computed from the length of the loader. Lightning's `estimated_stepping_batches` would start the
    loader before a resumed run has restored its position, and the run would resume from the first batch.

    Raises:
        UserError: Training has no end or no step, or an epoch ends before the first validation.
    """
    length = len(trainer.datamodule.train_dataloader())  # type: ignore[attr-defined]
    limit, epochs, max_steps = trainer.limit_train_batches, trainer.max_epochs, trainer.max_steps
    batches = limited_batches(length, limit)
    interval = getattr(trainer, "val_check_interval", None)  # missing if the interval is a time
    if (
        isinstance(interval, int)
        and interval > batches
        and trainer.limit_val_batches
        and trainer.check_val_every_n_epoch is not None
    ):
        raise UserError(
            f"trainer.val_check_interval={interval} exceeds the {batches} batches of an epoch; "
            "with trainer.check_val_every_n_epoch=null, batches are counted across epochs"
        )
    steps = optimizer_steps(batches, epochs, max_steps, trainer.accumulate_grad_batches)
    if steps < 1:
        raise UserError(
            f"nothing to train: trainer.max_epochs={epochs or 0}, trainer.max_steps={max_steps}, "
            f"trainer.limit_train_batches={limit} of {length} batches an epoch"
        )
    return steps


def make_schedule(
    optimizer: Optimizer, config: OptimConfig, total_steps: int, retrofit: RetrofitConfig = RetrofitConfig()
) -> LambdaLR:
    """Create the schedule with warm-up and cosine decay over `total_steps` optimizer steps.

    With `retrofit.added_steps`, there are two such schedules, one after the other: the first for the groups of added
    parameters alone, with the peak `retrofit.added_lr`, and the second for all groups.

    Raises:
        UserError: The warm-up is longer than training, or than one of the two parts.
    """
    first = retrofit.added_steps
    if first > total_steps:
        raise UserError(f"model.retrofit.added_steps={first} exceeds the {total_steps} steps of training")
    lengths = [length for length in (first, total_steps - first) if length]
    if config.warmup_steps is not None and config.warmup_steps > (shortest := min(lengths)):
        part = "steps of training" if len(lengths) == 1 else f"steps of a part of training, {lengths[0]} + {lengths[1]}"
        raise UserError(f"model.optim.warmup_steps={config.warmup_steps} exceeds the {shortest} {part}")
    added_lr = retrofit.added_lr or config.lr

    def relative_rate(added: bool) -> Callable[[int], float]:
        def at(step: int) -> float:
            if step < first and not added:
                return 0.0
            if step < first:
                floor = min(1.0, config.min_lr / added_lr)
                return added_lr / config.lr * warmup_cosine(step, first, _warmup(config, first), floor)
            length = total_steps - first
            return warmup_cosine(step - first, length, _warmup(config, length), config.min_lr / config.lr)

        return at

    return LambdaLR(optimizer, [relative_rate(group.get("added", True)) for group in optimizer.param_groups])


def _warmup(config: OptimConfig, steps: int) -> int:
    """Return the number of warm-up steps of a schedule."""
    return round(0.08 * steps) if config.warmup_steps is None else config.warmup_steps


def optimizer_and_schedule(
    model: nn.Module,
    config: OptimConfig,
    trainer: L.Trainer,
    more: Sequence[dict[str, Any]] = (),
    retrofit: RetrofitConfig = RetrofitConfig(),
) -> Any:
    """Return the optimizer and a per-step schedule, in the form that `configure_optimizers` returns.

    Args:
        model: The backbone.
        config: Optimizer and schedule.
        trainer: Determines the number of steps.
        more: Groups of parameters in addition to the backbone's.
        retrofit: For how many steps only what was added to the backbone is trained.
    """
    added = added_parameters(model) if retrofit.added_steps else ()
    optimizer = make_optimizer(model, config, more, added=added)
    schedule = make_schedule(optimizer, config, total_steps(trainer), retrofit)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

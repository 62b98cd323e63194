"""What a run needs and how long it takes, from its parsed configuration and its model."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from sinkablate.config import height_and_width
from sinkablate.data.sources import TRAINING_IMAGES
from sinkablate.diagnostics.schedule import measured_steps
from sinkablate.errors import UserError
from sinkablate.plan.devices import Device
from sinkablate.plan.estimate import Forward, estimate
from sinkablate.plan.prediction import Length, Workload, measurement, optimizer_step, predict, training_batch
from sinkablate.tasks.optim import limited_batches, make_optimizer, make_schedule, optimizer_steps

if TYPE_CHECKING:
    from sinkablate.plan.command import PlanCli


def plan(cli: "PlanCli", config: Any, device: Device | None) -> dict[str, Any]:
    """Return the plan of a run as plain values; those that depend on unknown data or an unknown device are None.

    Args:
        cli: The command, with its model.
        config: The parsed keys of `fit`.
        device: The device for which the time is predicted, if it is known.

    Raises:
        UserError: `fit` would refuse to train for this long, or with batches of this size.
    """
    image = (config.data.image.in_chans, *height_and_width(config.data.image.size))
    shape = image if cli.task_name == "classify" else (config.data.views.count, *image)
    forward, half = _forward(cli.task_name), "16" in str(config.trainer.precision)
    needs = estimate(cli.model, forward, shape, opt=config.model.optim.opt, half=half)
    images = config.images or TRAINING_IMAGES.get(config.data.source.format)
    batch, epochs = config.data.batch_size, config.trainer.max_epochs
    if images is not None and batch > images:
        raise UserError(f"data.batch_size={batch}: exceeds the {images} training images")
    if epochs == 0:
        raise UserError("trainer.max_epochs=0: nothing to train")
    length = _length(config, images)
    optimizer = make_optimizer(cli.model.backbone, cli.model.optim_config)
    if length is not None:
        make_schedule(optimizer, cli.model.optim_config, length.steps)  # refuses a warmup longer than the training
    devices = device_count(config.trainer.devices) * config.trainer.num_nodes
    prediction = None
    if device is not None:
        diagnostics = cli.config_init["fit"].diagnostics
        load = Workload(
            training_batch(cli.model.parts(), forward, (-(-batch // devices), *shape), half=half),
            optimizer_step(needs, getattr(cli.model, "ema", None)),
            measurement(cli.model.backbone, image, -(-diagnostics.images // devices), diagnostics)
            if diagnostics.every_n_steps
            else None,
        )
        prediction = {"devices": devices, **predict(load, device, batch, length)}
    return {
        "name": cli.task.model_name(config.model) + f"-{config.variant}",
        **asdict(needs),
        "training_flops": None if length is None else 3 * needs.flops_per_image * length.batches * batch,
        "batch_size": batch,
        "epochs": epochs,
        "images": images,
        "steps_per_epoch": None if images is None else _batches_per_epoch(config, images),
        "steps": None if length is None else length.steps,
        "memory_bytes_per_step": needs.state_bytes + batch * needs.activation_bytes_per_image,
        "checkpoints_bytes": 2 * needs.checkpoint_bytes,
        "prediction": prediction,
    }


def require_images(task: str) -> None:
    """Refuse a task that has no images.

    Raises:
        UserError: The task is a toy.
    """
    if task == "toy":
        raise UserError("task=toy: plan counts images, which a toy does not have; run fit instead, which takes seconds")


def device_count(devices: int | str | Sequence[int]) -> int:
    """Return how many devices of a node `trainer.devices` stands for; one if that depends on the machine (`auto`)."""
    if isinstance(devices, int):
        return max(1, devices)
    if isinstance(devices, str):
        listed = [index for index in devices.split(",") if index.strip()]
        return len(listed) if "," in devices else max(1, int(devices)) if devices.isdigit() else 1
    return max(1, len(devices))


def _length(config: Any, images: int | None) -> Length | None:
    """Return how many batches, optimizer steps and measurements a run has; None if its images are not known."""
    trainer = config.trainer
    endless, accumulated = trainer.max_epochs in (None, -1), trainer.accumulate_grad_batches
    if images is None and not endless:
        return None
    batches = _batches_per_epoch(config, images or 0)
    steps = optimizer_steps(batches, trainer.max_epochs, trainer.max_steps, accumulated)
    if steps < 1:
        raise UserError(f"nothing to train: {batches} batches an epoch, trainer.max_steps={trainer.max_steps}")
    diagnostics = config.diagnostics
    return Length(
        batches=_batches_of(steps, batches, accumulated),
        steps=steps,
        measurements=len(measured_steps(diagnostics.every_n_steps, diagnostics.per_doubling, steps)),
    )


def _batches_of(steps: int, batches: int, accumulated: int) -> int:
    """Return the number of batches of a run; the last step of an epoch may have fewer than `accumulated`.

    Args:
        steps: Optimizer steps of the run.
        batches: Batches of an epoch; 0 if they are not known.
        accumulated: Batches per step.
    """
    epochs, rest = divmod(steps, -(-batches // accumulated)) if batches else (0, steps)
    return epochs * batches + rest * accumulated


def _batches_per_epoch(config: Any, images: int) -> int:
    """Return the number of batches of an epoch."""
    limit = config.trainer.limit_train_batches
    return limited_batches(images // config.data.batch_size, 1.0 if limit is None else limit)


def _forward(task: str) -> Forward:
    """Return the forward pass of a training step of a task, from the parts of its module."""

    def classify(parts: Sequence[nn.Module], images: Tensor) -> object:
        return parts[0](images)  # a moving average of the backbone may follow

    def lejepa(parts: Sequence[nn.Module], images: Tensor) -> object:
        backbone, projector, probe = parts
        features = backbone(images.flatten(0, 1))
        return projector(features), probe(features.detach())

    return classify if task == "classify" else lejepa

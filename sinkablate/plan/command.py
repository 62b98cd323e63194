"""The command `plan`: estimate what a `fit` would need, within seconds, without data and without a GPU."""

import json
from dataclasses import asdict
from typing import Any

import torch
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from sinkablate.cli.lightning import Cli
from sinkablate.config import height_and_width
from sinkablate.data.sources import TRAINING_IMAGES
from sinkablate.errors import UserError, require_at_least
from sinkablate.plan.estimate import estimate
from sinkablate.tasks.optim import make_optimizer, make_schedule


class PlanCli(Cli):
    """Parse the command line of `fit` and build its model, but neither open data nor train."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the two keys that only `plan` has."""
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--images", type=int | None, default=None, help="Number of training images (known for embedded and scenes)."
        )
        parser.add_argument("--json", type=bool, default=False, help="Print the plan as JSON.")

    def before_instantiate_classes(self) -> None:
        """Do nothing: no directory is touched."""

    def instantiate_classes(self) -> None:
        """Build the model and the data module, but no trainer."""
        self.config_init = self.parser.instantiate_classes(self.config)
        self.model = self._get(self.config_init, "model")
        self.datamodule = self._get(self.config_init, "data")

    def _run_subcommand(self, subcommand: str) -> None:
        """Estimate, then print."""
        config = self.config["fit"]
        require_at_least(config.images, 1, "images")
        if self.task_name == "toy":
            raise UserError(
                "task=toy: plan counts images, which a toy does not have; run fit instead, which takes seconds"
            )
        self._refuse_what_fit_refuses(config)
        content = plan(self, config)
        print(json.dumps(content, indent=2)) if config.json else _print(content)

    def _refuse_what_fit_refuses(self, config: Any) -> None:
        """Run those checks that `fit` makes before it trains and that need no data."""
        self.model.check_data(self.datamodule, 1)
        diagnostics, image = self.config_init["fit"].diagnostics, config.data.image
        if diagnostics.every_n_steps:
            blank = torch.zeros(1, image.in_chans, *height_and_width(image.size))
            diagnostics.check_model(self.model, str(config.trainer.precision), blank)


def plan(cli: PlanCli, config: Any) -> dict[str, Any]:
    """Return the plan as plain values; those that depend on unknown data are None."""
    views = config.data.views.count
    image_shape = (config.data.image.in_chans, *height_and_width(config.data.image.size))
    shape = image_shape if cli.task_name == "classify" else (views, *image_shape)
    half = "16" in str(config.trainer.precision)
    needs = estimate(cli.model, _step(cli.task_name), shape, opt=config.model.optim.opt, half=half)
    images = config.images or TRAINING_IMAGES.get(config.data.source.format)
    batch, epochs = config.data.batch_size, config.trainer.max_epochs
    if images is not None and batch > images:
        raise UserError(f"data.batch_size={batch}: exceeds the {images} training images")
    if epochs == 0:
        raise UserError("trainer.max_epochs=0: nothing to train")
    steps = None if images is None or epochs in (None, -1) else images // batch * epochs
    optim = cli.model.optim_config
    optimizer = make_optimizer(cli.model.backbone, optim)
    if steps is not None:
        make_schedule(optimizer, optim, steps)  # refuses a warmup longer than the training
    return {
        "name": cli.task.model_name(config.model) + f"-{config.variant}",
        **asdict(needs),
        "training_flops": None if steps is None else 3 * needs.flops_per_image * steps * batch,
        "batch_size": batch,
        "epochs": epochs,
        "images": images,
        "steps_per_epoch": None if images is None else images // batch,
        "steps": steps,
        "memory_bytes_per_step": needs.state_bytes + batch * needs.activation_bytes_per_image,
        "checkpoints_bytes": 2 * needs.checkpoint_bytes,
    }


def _step(task: str) -> Any:
    """Return the forward pass of a training step of a task."""

    def classify(module: nn.Module, images: Tensor) -> object:
        return module.backbone(images)  # type: ignore[operator]

    def lejepa(module: Any, images: Tensor) -> object:
        features = module.backbone(images.flatten(0, 1))
        return module.projector(features), module.probe(features.detach())

    return classify if task == "classify" else lejepa


def _print(content: dict[str, Any]) -> None:
    """Print the plan as a table."""
    table = Table(title=content["name"], title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    lines = {
        "parameters": f"{content['parameters']:,}",
        "trainable parameters": f"{content['trainable']:,}",
        "forward pass, one image": f"{content['flops_per_image'] / 1e9:.3g} GFLOP",
        "activations for the backward pass, one image": _bytes(content["activation_bytes_per_image"]),
        "weights, gradients, optimizer state": _bytes(content["state_bytes"]),
        f"training step, batch of {content['batch_size']} on one device": _bytes(content["memory_bytes_per_step"]),
        "steps": "unknown; set --images N"
        if content["steps"] is None
        else f"{content['steps']:,} ({content['epochs']} epochs of {content['steps_per_epoch']:,})",
        "complete training": "-" if content["training_flops"] is None else f"{content['training_flops']:.2e} FLOP",
        "checkpoints on disk (the latest two)": _bytes(content["checkpoints_bytes"]),
    }
    for name, value in lines.items():
        table.add_row(name, value)
    Console(highlight=False).print(table)


def _bytes(count: int) -> str:
    """Format a number of bytes."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**28 else f"{count / 2**20:.1f} MiB"

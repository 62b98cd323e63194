"""The command `plan`: predict what a `fit` would need, within seconds, without data and without a GPU."""

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import LightningArgumentParser

from sinkablate.cli.lightning import Cli
from sinkablate.config import height_and_width
from sinkablate.errors import require_at_least
from sinkablate.plan.comparison import compare_with_run, measured_run, require_unchanged
from sinkablate.plan.devices import choose_device
from sinkablate.plan.planning import plan, require_images
from sinkablate.plan.terminal import print_plan
from sinkablate.process.threads import limit_threads
from sinkablate.run import trust


class PlanCli(Cli):
    """Parse the command line of `fit` and build its model, but neither open data nor train."""

    def __init__(self, command: str, args: list[str]) -> None:
        if any(word.partition("=")[0] == "--run" for word in args):  # the run may be someone else's
            trust.require_trusted_files(args)
            require_unchanged(args)
        super().__init__(command, args)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the keys that only `plan` has."""
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--images", type=int | None, default=None, help="Number of training images (known for embedded and scenes)."
        )
        parser.add_argument(
            "--device",
            type=str | None,
            default=None,
            help="Device for which the time is predicted: a100, h100, h200, l40s, or cpu, which is measured here "
            "(default: the device of this machine).",
        )
        parser.add_argument(
            "--efficiency",
            type=float | None,
            default=None,
            help="Share of the peak rates that the device reaches, in (0, 1] (default: 0.45 for a GPU, 0.6 for a CPU).",
        )
        parser.add_argument(
            "--run",
            type=str | None,
            default=None,
            help="Directory of a finished run: plan its configuration, and compare the prediction with its throughput.",
        )
        parser.add_argument("--trust", type=bool, default=False, help=trust.HELP)
        parser.add_argument("--json", type=bool, default=False, help="Print the plan as JSON.")

    def before_instantiate_classes(self) -> None:
        """Do nothing: no directory is touched."""

    def instantiate_classes(self) -> None:
        """Build the model and the data module, but no trainer."""
        self.config_init = self.parser.instantiate_classes(self.config)
        self.model = self._get(self.config_init, "model")
        self.datamodule = self._get(self.config_init, "data")

    def _run_subcommand(self, subcommand: str) -> None:
        """Predict, then print."""
        config = self.config["fit"]
        require_at_least(config.images, 1, "images")
        require_images(self.task_name)
        self._refuse_what_fit_refuses(config)
        run = None if config.run is None else measured_run(Path(config.run))
        threads = limit_threads() if run is None else int(run["threads"])
        accelerator = str(config.trainer.accelerator) if run is None else str(run["device"])
        content = plan(self, config, choose_device(config.device, config.efficiency, accelerator, threads))
        if run is not None:
            content["measured"] = compare_with_run(run, content["prediction"])
        print(json.dumps(content, indent=2)) if config.json else print_plan(content)

    def _refuse_what_fit_refuses(self, config: Any) -> None:
        """Run those checks that `fit` makes before it trains and that need no data."""
        self.model.check_data(self.datamodule, 1)
        diagnostics, image = self.config_init["fit"].diagnostics, config.data.image
        if diagnostics.every_n_steps:
            blank = torch.zeros(1, image.in_chans, *height_and_width(image.size))
            diagnostics.check_model(self.model, str(config.trainer.precision), blank)

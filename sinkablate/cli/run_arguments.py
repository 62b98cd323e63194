"""Define the keys of a run that belong neither to Lightning nor to the model or the data."""

from lightning.pytorch.cli import LightningArgumentParser

from sinkablate.callbacks.checkpointing import RunCheckpoint
from sinkablate.callbacks.run_diagnostics import RunDiagnostics
from sinkablate.callbacks.stability import Stability
from sinkablate.cli.tasks import DataLink, Task
from sinkablate.config import WandbConfig
from sinkablate.run import trust
from sinkablate.run.checkpoint_io import OnFailure


def add_run_arguments(parser: LightningArgumentParser, task: str, links: tuple[DataLink, ...]) -> None:
    """Add the keys and the links between keys.

    Args:
        parser: Parser of one command.
        task: Name of the task.
        links: Keys of the model that take their values from the data.
    """
    parser.add_argument("--task", type=Task, default=task, help="What to train: classify, lejepa or toy.")
    parser.add_argument("--variant", type=str, default="baseline", help="Name of the variant in run names.")
    parser.add_argument(
        "--run_dir",
        type=str | None,
        default=None,
        help="Directory of the run (default: runs/<model>-<variant>-s<seed>).",
    )
    parser.add_argument(
        "--sweep",
        type=str | None,
        default=None,
        help="Sweep that this run is a cell of. It sets run_dir to runs/<sweep>/<hash of the arguments>, and sets "
        "the names, the W&B id and the W&B group.",
    )
    parser.add_argument(
        "--overwrite",
        type=bool,
        default=False,
        help="Start over in a directory that holds a run, and remove its results and all of its checkpoints.",
    )
    parser.add_class_arguments(WandbConfig, "wandb")
    parser.add_lightning_class_args(RunDiagnostics, "diagnostics")
    parser.add_lightning_class_args(Stability, "stability")
    parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
    parser.add_argument(
        "--on_checkpoint_failure",
        type=OnFailure,
        default="stop",
        help="Whether the run stops or continues when a checkpoint cannot be written.",
    )
    parser.set_defaults(
        {"checkpoint.save_last": None, "checkpoint.save_top_k": 1, "checkpoint.enable_version_counter": False}
    )
    for target in ("model", "data"):
        parser.link_arguments("seed_everything", f"{target}.seed")
    for link in links:
        parser.link_arguments(f"data.{link.read}", f"model.{link.target}", link.infer)


def add_reader_arguments(parser: LightningArgumentParser) -> None:
    """Add the keys of the commands that read a finished run: `run` and `trust`."""
    parser.add_argument(
        "--run",
        type=str | None,
        default=None,
        help="Directory of the run: short for --config DIR/config.yaml --run_dir DIR.",
    )
    parser.add_argument("--trust", type=bool, default=False, help=trust.HELP)

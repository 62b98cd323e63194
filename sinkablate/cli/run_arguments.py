"""The keys of a run that are not Lightning's, its model's or its data's."""

from lightning.pytorch.cli import LightningArgumentParser

from sinkablate.callbacks.checkpointing import RunCheckpoint
from sinkablate.callbacks.run_diagnostics import RunDiagnostics
from sinkablate.callbacks.stability import Stability
from sinkablate.cli.tasks import Follows, Task
from sinkablate.config import WandbConfig
from sinkablate.run.checkpoint_io import OnFailure


def add_run_arguments(parser: LightningArgumentParser, task: str, follows: tuple[Follows, ...]) -> None:
    """Add the keys and the links between keys.

    Args:
        parser: Parser of one command.
        task: What is trained.
        follows: Keys of the model that take their values from the data.
    """
    parser.add_argument("--task", type=Task, default=task, help="What is trained.")
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
        help="Sweep that this run is a cell of: run_dir is runs/<sweep>/<hash of the arguments>, "
        "and names and W&B's id and group follow.",
    )
    parser.add_argument("--overwrite", type=bool, default=False, help="Start over in a directory that holds a run.")
    parser.add_class_arguments(WandbConfig, "wandb")
    parser.add_lightning_class_args(RunDiagnostics, "diagnostics")
    parser.add_lightning_class_args(Stability, "stability")
    parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
    parser.add_argument(
        "--on_checkpoint_failure",
        type=OnFailure,
        default="stop",
        help="What a checkpoint that cannot be written does to the run: stop or continue.",
    )
    parser.set_defaults(
        {"checkpoint.save_last": None, "checkpoint.save_top_k": 1, "checkpoint.enable_version_counter": False}
    )
    for target in ("model", "data"):
        parser.link_arguments("seed_everything", f"{target}.seed")
    for follow in follows:
        parser.link_arguments(f"data.{follow.read}", f"model.{follow.target}", follow.infer)

"""Silence messages of libraries that do not apply to runs of this package."""

import logging
import warnings


def silence_libraries() -> None:
    """Silence advice of libraries that does not apply here, so that the output of a run stays readable."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # retries of a host that cannot be reached
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # telemetry of W&B
    for text in (
        ".*does not have many workers.*",
        ".*number of training batches.*",
        ".*LeafSpec.*",
        ".*isinstance.treespec.*",
        ".*litlogger.*",
        ".*custom batch sampler.*",
        ".*intended to run from within Python.*",
        ".*srun. command is available.*",
        r"Be aware that when using .ckpt_path.*callbacks: \['Preemption'\]",  # only `fit` has it
        "Checkpoint directory .* is not empty",
        "The dirpath has changed from",
    ):
        warnings.filterwarnings("ignore", text)

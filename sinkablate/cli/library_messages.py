"""What libraries print that does not apply to our runs."""

import logging
import warnings


def silence_libraries() -> None:
    """Silence library advice that does not apply here, so that our own lines stay readable."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # five retries of a host that cannot be reached
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # W&B's own telemetry, when its server refuses
    for text in (
        ".*does not have many workers.*",
        ".*number of training batches.*",
        ".*LeafSpec.*",
        ".*isinstance.treespec.*",
        ".*litlogger.*",
        ".*custom batch sampler.*",
        ".*intended to run from within Python.*",
        ".*srun. command is available.*",
        r"Be aware that when using .ckpt_path.*callbacks: \['Preemption'\]",  # which only `fit` has
        "Checkpoint directory .* is not empty",
        "The dirpath has changed from",
    ):
        warnings.filterwarnings("ignore", text)

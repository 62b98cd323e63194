"""Which messages of libraries are shown. Standard library only."""

import logging
import os
import sys
import warnings


class _Downloads(logging.Handler):
    """Print a line when timm starts to load pretrained weights, which can take a minute, or longer when offline."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith("Loading pretrained weights from Hugging Face hub"):
            print(f"{message} or its cache (HF_HUB_OFFLINE=1: from the cache alone)", file=sys.stderr, flush=True)


_DOWNLOADS = _Downloads()


def announce_downloads() -> None:
    """Say in one line on stderr that pretrained weights are being loaded, before anything is downloaded."""
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # read at its import; silences the retries when offline
    logger = logging.getLogger("timm.models._builder")
    logger.setLevel(logging.INFO)
    logger.addHandler(_DOWNLOADS)  # a handler is added once, however often this is called


def silence_libraries() -> None:
    """Silence advice of libraries that does not apply here, so that the output of a run stays readable."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
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
        ".*your dataloader is not resumable.*",  # the data module resumes at the position of the trainer
        ".*in eval mode at the start of training.*",  # the moving average of the weights
        "Checkpoint directory .* is not empty",
        "The dirpath has changed from",
    ):
        warnings.filterwarnings("ignore", text)

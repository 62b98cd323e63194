"""Choose how a run shows its progress: a bar on a terminal, lines in a file."""

import sys

from lightning.pytorch.callbacks import ProgressBar

from sinkablate.callbacks.progress_bar import Bar
from sinkablate.callbacks.progress_lines import Lines
from sinkablate.callbacks.throughput import Throughput


def progress_callback(throughput: Throughput) -> ProgressBar:
    """Return the callback for the current output: a bar on a terminal, a line every few seconds elsewhere."""
    return Bar(throughput) if sys.stderr.isatty() else Lines(throughput)

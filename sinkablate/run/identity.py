"""What a run is recognized by after its directory has been moved or copied."""

import hashlib
from pathlib import Path

from sinkablate.run.directory import CONFIG

DIGITS = 16
"""Length of an identity, in hexadecimal digits."""


def run_id(run_dir: Path) -> str:
    """Return a hash of a run's configuration, which holds its seed and the directory that it was started in.

    A diagnosis stores it, so that a report finds the run whose weights were measured.
    """
    return hashlib.sha256((run_dir / CONFIG).read_bytes()).hexdigest()[:DIGITS]


def results_id(run_dir: Path) -> str:
    """Return a hash of a run's configuration and metrics, which only copies of a run have in common."""
    metrics = run_dir / "metrics.csv"
    content = (run_dir / CONFIG).read_bytes() + (metrics.read_bytes() if metrics.is_file() else b"")
    return hashlib.sha256(content).hexdigest()[:DIGITS]

"""Provenance of the numbers of a run: versions of packages, and the revision of this code."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sinkablate import __version__

PACKAGES = ("torch", "torchvision", "lightning", "timm", "torchmetrics", "wandb", "webdataset", "numpy")


def provenance() -> dict[str, Any]:
    """Versions of the installed packages, and the git revision of the code if it is a checkout."""
    versions = {"sinkablate": __version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"versions": versions, "git_revision": _git_revision()}


def _git_revision() -> str | None:
    """Commit of this source tree, with `-dirty` if files differ from it; None outside a checkout."""
    # without git's lock: a killed process would leave it behind and block later commits
    command = [
        "git",
        "--no-optional-locks",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
    ]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None

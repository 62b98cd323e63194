"""Sweeps of small cells for several tests."""

from pathlib import Path
from typing import Any

import torch
import yaml
from running import CONFIGS, QUICK, Outcome, forked, run

from sinkablate.sweep.grid import Sweep, read_sweep

SMALL: dict[str, Any] = {"model.backbone.registers": {"values": [0, 2]}, "seed_everything": {"values": [0, 1]}}
"""Four cells."""


def content(parameters: dict[str, Any] | None = None, *words: str) -> dict[str, Any]:
    """A sweep file whose cells take two steps each, unless words say otherwise."""
    command = [
        "${env}",
        "${interpreter}",
        "-m",
        "sinkablate",
        "fit",
        "--config",
        str(CONFIGS / "baseline.yaml"),
        *QUICK,
        *words,
        "--sweep",
        "small",
        "--ckpt_path",
        "auto",
        "${args}",
    ]
    return {
        "program": "sinkablate",
        "name": "small",
        "method": "grid",
        "command": command,
        "parameters": SMALL if parameters is None else parameters,
    }


def written(folder: Path, made: dict[str, Any]) -> Path:
    """The file."""
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(made, sort_keys=False))
    return path


def sweep(command: str, path: Path, *args: str) -> Outcome:
    """`sweep COMMAND` in this process, into a folder beside the file."""
    return run("sweep", command, path, "--out", root_of(path), *args)


def spawned(command: str, path: Path, *args: str) -> Outcome:
    """The same as a process of its own."""
    return forked("sweep", command, path, "--out", root_of(path), *args)


def root_of(path: Path) -> Path:
    """Directory of the cells."""
    return path.parent / "cells"


def opened(path: Path) -> Sweep:
    """The sweep itself."""
    return read_sweep(path)


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    """State of the last checkpoint."""
    found: dict[str, torch.Tensor] = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return found


def same_weights(one: Path, other: Path) -> bool:
    """Equal to the last bit."""
    left, right = weights(one), weights(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)

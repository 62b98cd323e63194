"""Sweeps with small cells, shared by several tests."""

from pathlib import Path
from typing import Any

import torch
import yaml
from running import CONFIGS, QUICK, Outcome, checkpoint, forked, run

from sinkablate.sweep.grid import Sweep, read_sweep

SMALL: dict[str, Any] = {"model.backbone.registers": {"values": [0, 2]}, "seed_everything": {"values": [0, 1]}}
"""Parameters of a sweep of four cells."""


def content(parameters: dict[str, Any] | None = None, *args: str) -> dict[str, Any]:
    """Content of a sweep file whose cells train two steps each, unless `args` override this."""
    command = [
        "${env}",
        "${interpreter}",
        "-m",
        "sinkablate",
        "fit",
        "--config",
        str(CONFIGS / "baseline.yaml"),
        *QUICK,
        *args,
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


def written(folder: Path, sweep_content: dict[str, Any]) -> Path:
    """Write a sweep file; returns its path."""
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(sweep_content, sort_keys=False))
    return path


def sweep(command: str, path: Path, *args: str) -> Outcome:
    """Run `sweep COMMAND` in this process, with the folder next to the file."""
    return run("sweep", command, path, "--out", root_of(path), *args)


def spawned(command: str, path: Path, *args: str) -> Outcome:
    """Run `sweep COMMAND` in a forked process."""
    return forked("sweep", command, path, "--out", root_of(path), *args)


def root_of(path: Path) -> Path:
    """Directory of the cells of a sweep file."""
    return path.parent / "cells"


def opened(path: Path) -> Sweep:
    """Read the sweep."""
    return read_sweep(path)


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    """Weights of the last checkpoint."""
    state: dict[str, torch.Tensor] = checkpoint(run_dir)["state_dict"]
    return state


def same_weights(one: Path, other: Path) -> bool:
    """Whether two runs have the same weights, to the last bit."""
    left, right = weights(one), weights(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def trained_once(root: Path) -> bool:
    """Whether the log of every cell contains one completed training run."""
    return all(log.read_text().count("run directory:") == 1 for log in root.glob("*/log.txt"))

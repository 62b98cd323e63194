"""Find the configs, sweeps and SLURM scripts that come with the package by name. Standard library only.

In a checkout they are the top-level folders `configs/`, `sweeps/` and `slurm/`; a wheel carries the same folders in
`sinkablate/shipped/`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import sinkablate
from sinkablate.files.suggestions import did_you_mean

Kind = Literal["configs", "sweeps"]


def shipped_root() -> Path:
    """Return the folder that holds `configs/`, `sweeps/` and `slurm/`."""
    package = Path(sinkablate.__file__).resolve().parent
    in_wheel = package / "shipped"
    return in_wheel if in_wheel.is_dir() else package.parent


def shipped_names(kind: Kind) -> list[str]:
    """Return the names of all shipped configs (`gate_reg`, `data/imagenet`, ...) or sweeps (`ablation`, `paper/mixed`,
    ...), sorted.

    The configs that the cells of a sweep are made of, such as `sweeps/toys/nop.yaml`, are not sweeps.
    """
    folder = shipped_root() / kind
    patterns = ("**/*.yaml",) if kind == "configs" else ("*.yaml", "paper/*.yaml")
    paths = (path for pattern in patterns for path in folder.glob(pattern))
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in paths)


def find_shipped(kind: Kind, name: str) -> str | None:
    """Return the path of the file that a name stands for, or None if there is neither such a file nor a shipped one.

    A file that exists always wins. Otherwise `gate_reg`, `gate_reg.yaml` and `configs/gate_reg.yaml` all name the
    shipped config. The path is relative to the working directory where that is the checkout, and absolute elsewhere.
    """
    if name and Path(name).exists() and not Path(name).is_dir():
        return name
    stem = name.removesuffix(".yaml")
    relative = Path(kind, f"{stem}.yaml") if stem in shipped_names(kind) else Path(name)
    path = shipped_root() / relative
    if ".." in relative.parts or relative.suffix != ".yaml" or not path.is_file():
        return None
    return relative.as_posix() if relative.exists() and relative.samefile(path) else str(path)


def nearest_shipped(kind: Kind, name: str) -> str:
    """Return the end of a message about an unknown name: the shipped name that resembles it most, if any does."""
    return did_you_mean(name.removeprefix(f"{kind}/").removesuffix(".yaml"), shipped_names(kind))


def checkout_path(path: str) -> str:
    """Return the path that a shipped file has in a checkout, such as `configs/gate_reg.yaml`; other paths unchanged.

    A run is identified by this path, so that its identity does not depend on where sinkablate is installed.
    """
    try:
        relative = Path(path).resolve().relative_to(shipped_root())
    except (OSError, ValueError):
        return path
    return relative.as_posix() if relative.parts[:1] in (("configs",), ("sweeps",)) else path


def resolve_config_names(words: Sequence[str]) -> list[str]:
    """Return command-line words with every `--config NAME` of a shipped config replaced by its path.

    Names that are unknown stay as they are: the checks of the command refuse them.
    """
    resolved: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if key in ("--config", "-c") and equals:
            resolved.append(f"{key}={find_shipped('configs', value) or value}")
        elif resolved and resolved[-1] in ("--config", "-c"):
            resolved.append(find_shipped("configs", word) or word)
        else:
            resolved.append(word)
    return resolved

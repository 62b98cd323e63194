"""One line for each way in which a file of weights cannot be read."""

import pickle
import re
from pathlib import Path

import torch
from safetensors import SafetensorError

from sinkablate.errors import first_line, listed
from sinkablate.files import git_lfs

DAMAGED = "truncated or not a checkpoint"
COPY_AGAIN = "copy or download it again"


def why_unreadable(path: str, error: Exception) -> str:
    """Describe why a file was not read, without torch's hint to read it with `weights_only=False`."""
    if "TorchScript" in str(error):
        return (
            "a TorchScript archive, which contains code and is not read; save its weights alone: "
            "torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)"
        )
    with Path(path).open("rb") as file:
        start = file.read(len(git_lfs.POINTER))
    if not start:
        return f"the file is empty; {COPY_AGAIN}"
    if start == git_lfs.POINTER:
        return "a pointer of Git LFS in place of the file; download it with `git lfs pull`"
    if isinstance(error, pickle.UnpicklingError) and (objects := _python_objects(path, str(error))):
        return (
            f"contains Python objects ({objects}), which could run commands and are not read; in an environment that "
            'you trust, save its state dict alone: torch.save(checkpoint["model"], NEW_FILE), or as safetensors'
        )
    # Other messages are of no help, such as a single number.
    reason = f" ({first_line(error)})" if isinstance(error, SafetensorError | RuntimeError) else ""
    return f"{DAMAGED}{reason}; {COPY_AGAIN}"


def _python_objects(path: str, message: str) -> str:
    """Return the names of the classes that a file would import, such as argparse.Namespace; empty if there are none."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # older formats, and damaged files
        names = re.findall(r"GLOBAL ([\w.]+)", message)
    return listed(names, 3)

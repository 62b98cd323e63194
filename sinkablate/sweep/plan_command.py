"""The command `sweep plan`: list and check the cells of a sweep, and predict how long they train."""

import json
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from sinkablate.errors import UserError, require_at_least
from sinkablate.run.cells import Cell
from sinkablate.sweep.checking import check
from sinkablate.sweep.grid import Sweep
from sinkablate.sweep.opening import open_sweep
from sinkablate.sweep.state import states

Format = Literal["table", "json"]


def plan(
    file: str,
    out: str | None = None,
    allow_confounded: bool = False,
    format: Format = "table",
    gpus: int | None = None,
    device: str | None = None,
    efficiency: float | None = None,
    images: int | None = None,
) -> int:
    """List the cells of a sweep and check each of them, without starting anything; with --gpus, predict its time.

    Args:
        file: Sweep file (a W&B grid), or the name of a shipped sweep.
        out: Directory of the sweep (default: runs/<name>).
        allow_confounded: Accept cells that differ in more than what the parameters name, such as a learning rate.
        format: Format of the output.
        gpus: Number of GPUs for which the time of the sweep is predicted; with --device cpu, of cells at the same time.
        device: Device of the prediction: a100, h100, h200, l40s, or cpu (default: the device of this machine).
        efficiency: Share of the peak rates that the device reaches (default: 0.45 for a GPU, 0.6 for a CPU).
        images: Number of training images (known for embedded and scenes).
    """
    for name, value in (("device", device), ("efficiency", efficiency), ("images", images)):
        if gpus is None and value is not None:
            raise UserError(f"{name}={value}: has no effect without --gpus N")
    sweep, root = open_sweep(file, out)
    require_at_least(gpus, 1, "gpus")
    require_at_least(images, 1, "images")
    check(sweep, root, allow_confounded=allow_confounded)
    if gpus is not None:
        return _predict(sweep, root, gpus, device, efficiency, images, format)
    if format == "json":
        cells = [_described(cell, root) for cell in sweep.cells]
        print(json.dumps({"name": sweep.name, "root": str(root), "cells": cells}, indent=1))
        return 0
    from sinkablate.sweep.live import table

    Console(highlight=False).print(table(sweep, root, states(sweep.cells, root)))
    return 0


def _predict(
    sweep: Sweep,
    root: Path,
    gpus: int,
    device: str | None,
    efficiency: float | None,
    images: int | None,
    format: Format,
) -> int:
    """Print when the cells train."""
    from sinkablate.plan.devices import choose_device
    from sinkablate.sweep.predicting import predict_sweep, times_table

    chosen = choose_device(device, efficiency, "auto", threads=1)
    if chosen is None:
        raise UserError("device: the rates of this GPU are unknown; add --device, such as --device h100")
    times = predict_sweep(sweep, chosen, gpus, images)
    if format == "table":
        console = Console(highlight=False)
        console.width = max(console.width, 160) if not console.is_terminal else console.width
        console.print(times_table(sweep, chosen, gpus, times))
        return 0
    cells = [_described(time.cell, root) | {"prediction": time.described()} for time in times]
    total = {
        "device": chosen.name,
        "gpus": gpus,
        "seconds": max(time.end for time in times),
        "device_seconds": sum(time.seconds * time.devices for time in times),
    }
    print(json.dumps({"name": sweep.name, "root": str(root), "prediction": total, "cells": cells}, indent=1))
    return 0


def _described(cell: Cell, root: Path) -> dict[str, Any]:
    """Return a planned cell as plain values."""
    factors, words = cell.short_factors, list(cell.words)
    return {"id": cell.id, "label": cell.label, "factors": factors, "words": words, "run_dir": str(root / cell.id)}

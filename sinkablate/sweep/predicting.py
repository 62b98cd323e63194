"""Predict how long the cells of a sweep train, and how long the sweep takes on several devices."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from sinkablate.cli.library_messages import silence_libraries
from sinkablate.cli.tasks import task_of
from sinkablate.distributed.fsdp2 import register
from sinkablate.errors import UserError
from sinkablate.plan.command import PlanCli
from sinkablate.plan.devices import Device
from sinkablate.plan.planning import plan, require_images
from sinkablate.plan.terminal import duration
from sinkablate.process import streams
from sinkablate.run.cells import SEED, Cell
from sinkablate.sweep.grid import Sweep


@dataclass(frozen=True)
class CellTime:
    """When a cell trains, in seconds after the start of the sweep."""

    cell: Cell
    devices: int
    start: float
    training: float
    diagnostics: float

    @property
    def seconds(self) -> float:
        """Duration of the cell."""
        return self.training + self.diagnostics

    @property
    def end(self) -> float:
        """When the cell ends."""
        return self.start + self.seconds

    def described(self) -> dict[str, Any]:
        """Return the times as plain values."""
        return {
            "devices": self.devices,
            "start_seconds": self.start,
            "training_seconds": self.training,
            "diagnostics_seconds": self.diagnostics,
            "seconds": self.seconds,
        }


class _CellCli(PlanCli):
    """Builds the model of a cell, and neither checks nor prints anything: the sweep has been checked."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Do nothing: the caller predicts the time."""


def predict_sweep(sweep: Sweep, device: Device, gpus: int, images: int | None) -> list[CellTime]:
    """Predict when the cells of a sweep train; they start in the order of the file, as `sweep run` starts them.

    Args:
        sweep: The sweep, whose cells have been checked.
        device: Every device of the sweep.
        gpus: Number of devices.
        images: Number of training images, if the data does not say.

    Raises:
        UserError: A cell cannot be planned, its length is unknown, or it needs more devices.
    """
    predictions = _predictions(sweep, device, images)
    rows = [predictions[_without_seed(cell)] for cell in sweep.cells]
    for cell, row in zip(sweep.cells, rows, strict=True):
        if row["devices"] > gpus:
            raise UserError(f"gpus={gpus}: {cell.label} trains on {row['devices']} devices (trainer.devices)")
    starts = schedule([(row["seconds"], row["devices"]) for row in rows], gpus)
    return [
        CellTime(cell, row["devices"], start, row["training_seconds"], row["diagnostics_seconds"])
        for cell, row, start in zip(sweep.cells, rows, starts, strict=True)
    ]


def schedule(cells: Sequence[tuple[float, int]], gpus: int) -> list[float]:
    """Return when each cell starts: in order, as soon as enough devices are free.

    Args:
        cells: Seconds and number of devices of each cell.
        gpus: Number of devices.
    """
    free, starts, now = [0.0] * gpus, [], 0.0  # when each device is free next, as a heap
    for seconds, devices in cells:
        taken = [heapq.heappop(free) for _ in range(devices)]
        now = max(now, taken[-1])
        starts.append(now)
        for _ in taken:
            heapq.heappush(free, now + seconds)
    return starts


def _predictions(sweep: Sweep, device: Device, images: int | None) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return the prediction of every combination of the factors except the seed."""
    silence_libraries()
    register()
    cells: dict[tuple[str, ...], Cell] = {}
    for cell in sweep.cells:
        cells.setdefault(_without_seed(cell), cell)
    clis: dict[str, _CellCli] = {}
    predictions = {}
    for number, (key, cell) in enumerate(cells.items(), start=1):
        streams.show_status(f"predicting {len(cells):,} combinations: {number:,} ...")
        try:
            predictions[key] = _prediction(clis, cell, device, images)
        except UserError as error:
            raise UserError(f"{sweep.path}: {cell.label}: {error}") from error
    streams.clear_status()
    return predictions


def _prediction(clis: dict[str, _CellCli], cell: Cell, device: Device, images: int | None) -> dict[str, Any]:
    """Return the prediction of one cell; one parser per task is kept, because building it is slow."""
    words = [*cell.words, *([] if images is None else ["--images", str(images)])]
    require_images(task := task_of(words))
    if task in clis:
        cli = clis[task]
        cli.parse_arguments(cli.parser, [cli.command, *words])
        cli.instantiate_classes()
    else:
        cli = clis[task] = _CellCli("fit", words)
    prediction: dict[str, Any] = plan(cli, cli.config[cli.command], device)["prediction"]
    if prediction["seconds"] is None:
        raise UserError("the number of training images is unknown; add --images N")
    return prediction


def _without_seed(cell: Cell) -> tuple[str, ...]:
    """Return the values of a cell's factors except the seed, which does not change how long it trains."""
    return tuple(value for key, value in cell.factors.items() if key != SEED)


def times_table(sweep: Sweep, device: Device, gpus: int, times: Sequence[CellTime]) -> Table:
    """Return a table with one row per cell, and a title that sums them up."""
    total = sum(time.seconds * time.devices for time in times)
    title = (
        f"{sweep.name}: predicted {duration(max(time.end for time in times))} on {gpus} x {device.name} "
        f"({len(times)} cells, {duration(total)} on one, efficiency {device.efficiency:g})"
    )
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for name in ("id", "cell", "devices", "start", "training", "diagnostics"):
        table.add_column(name, justify="left" if name in ("id", "cell") else "right", no_wrap=True)
    for time in times:
        numbers = (duration(seconds) for seconds in (time.start, time.training, time.diagnostics))
        table.add_row(time.cell.id, time.cell.label, str(time.devices), *numbers)
    return table

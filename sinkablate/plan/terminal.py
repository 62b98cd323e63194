"""Print a plan as a table."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

PARTS = {"training_batch": "training batch", "optimizer_step": "optimizer step", "measurement": "measurement"}
"""Parts of a run: their keys in the plan, and their names in the table."""


def print_plan(content: dict[str, Any]) -> None:
    """Print the plan of one run."""
    console = Console(highlight=False)
    needs = Table(title=content["name"], title_justify="left", show_header=False)
    needs.add_column()
    needs.add_column(justify="right")
    for name, value in _needs(content).items():
        needs.add_row(name, value)
    console.print(needs)
    prediction = content["prediction"]
    if prediction is None:
        console.print("time: unknown; set --device, such as --device h100")
        return
    console.print(_parts(prediction))
    for line in _totals(prediction, content.get("measured")):
        console.print(line, soft_wrap=True)


def _needs(content: dict[str, Any]) -> dict[str, str]:
    """Return the rows about size, memory and steps."""
    return {
        "parameters": f"{content['parameters']:,}",
        "trainable parameters": f"{content['trainable']:,}",
        "forward pass, one image": f"{content['flops_per_image'] / 1e9:.3g} GFLOP",
        "activations for the backward pass, one image": _bytes(content["activation_bytes_per_image"]),
        "weights, gradients, optimizer state": _bytes(content["state_bytes"]),
        f"training step, batch of {content['batch_size']} on one device": _bytes(content["memory_bytes_per_step"]),
        "steps": _steps(content),
        "complete training": "-" if content["training_flops"] is None else f"{content['training_flops']:.2e} FLOP",
        "checkpoints on disk (the latest two)": _bytes(content["checkpoints_bytes"]),
    }


def _steps(content: dict[str, Any]) -> str:
    """Describe the number of steps."""
    if content["steps"] is None:
        return "unknown; set --images N"
    if content["steps_per_epoch"] is None:
        return f"{content['steps']:,}"
    return f"{content['steps']:,} ({content['epochs']} epochs of {content['steps_per_epoch']:,})"


def _parts(prediction: dict[str, Any]) -> Table:
    """Return a table of the parts of a run: their seconds, the three terms of these, and what was counted."""
    device = f"{prediction['devices']} x {prediction['device']}" if prediction["devices"] > 1 else prediction["device"]
    title = f"predicted for {device} (efficiency {prediction['efficiency']:g})"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for name in ("part", "time", "arithmetic", "memory", "launches", "GFLOP", "GiB", "operations"):
        table.add_column(name, justify="left" if name == "part" else "right", no_wrap=True)
    for key, name in PARTS.items():
        if (part := prediction[key]) is not None:
            seconds = [duration(part[f"{term}_seconds"]) for term in ("total", "arithmetic", "memory", "launches")]
            table.add_row(
                name, *seconds, _short(part["flops"] / 1e9), _short(part["bytes"] / 2**30), f"{part['operations']:,}"
            )
    return table


def _totals(prediction: dict[str, Any], measured: dict[str, Any] | None) -> Iterator[str]:
    """Yield lines about the run: its predicted time and, for a finished run, what was measured."""
    if prediction["seconds"] is not None:
        yield f"training: {duration(prediction['training_seconds'])}"
    if prediction["measurements"]:
        yield (
            f"{prediction['measurements']:,} measurements: {duration(prediction['diagnostics_seconds'])} "
            f"({prediction['diagnostics_share']:.1%} of training)"
        )
    if prediction["seconds"] is not None:
        yield f"throughput: {prediction['images_per_second']:,.0f} images/s"
    if measured is not None:
        yield f"measured: {measured['images_per_second']:,.0f} images/s ({measured['device']})"
        if (ratio := measured["measured_over_predicted_seconds"]) is not None:
            yield f"measured time / predicted time: {ratio:.2f}"


def _short(number: float) -> str:
    """Format a number with two digits, or without decimals if it is large."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def duration(seconds: float) -> str:
    """Format a duration."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _bytes(count: int) -> str:
    """Format a number of bytes."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**28 else f"{count / 2**20:.1f} MiB"

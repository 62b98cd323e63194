"""Show the states of a sweep: one updated line per cell on a terminal, one line per change in a log file."""

import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sinkablate.run.cells import Cell
from sinkablate.sweep.grid import Sweep
from sinkablate.sweep.state import State, failed_because, last_line, state_of

COLORS = {State.TODO: "dim", State.RUNNING: "cyan", State.PREEMPTED: "yellow", State.FAILED: "red", State.DONE: "green"}
UPDATE_SECONDS = 0.5
"""Seconds between two checks of the directories."""


def status_text(cell: Cell, state: State, root: Path) -> str:
    """Return the last line of output of a running cell, or the reason why a cell failed."""
    if state is State.FAILED:
        return failed_because(root / cell.id)
    return last_line(root / cell.id) if state is State.RUNNING else ""


def totals(states: dict[str, State]) -> str:
    """Return the number of cells in every state that occurs, as text."""
    counts = Counter(states.values())
    return ", ".join(f"{counts[state]} {state}" for state in State if counts[state])


def table(sweep: Sweep, root: Path, states: dict[str, State], limit: int | None = None) -> Table:
    """Return a table with one row per cell; with a limit, running and failed cells come first and others are cut."""
    shown = list(sweep.cells)
    if limit is not None and len(shown) > limit:
        order = [State.RUNNING, State.FAILED, State.PREEMPTED, State.TODO, State.DONE]
        shown = sorted(shown, key=lambda cell: order.index(states[cell.id]))[: max(limit, 0)]
    title = f"{sweep.name}: {totals(states)}"
    rows = Table(title=title, title_justify="left", show_header=False, box=None, expand=True)
    for name in ("id", "cell", "state"):
        rows.add_column(name, no_wrap=True)
    rows.add_column("words", no_wrap=True, overflow="ellipsis", ratio=1)  # the column that is cut on a narrow terminal
    for cell in shown:
        state = states[cell.id]
        rows.add_row(cell.id, cell.label, Text(state, style=COLORS[state]), Text(status_text(cell, state, root)))
    return rows


class View:
    """Show a sweep while it runs. A call checks the directories if the last check is long enough ago.

    Args:
        sweep: The sweep.
        root: Directory of the sweep.
        console: Console to print on.
    """

    def __init__(self, sweep: Sweep, root: Path, console: Console) -> None:
        self.sweep, self.root, self.console = sweep, root, console
        self.states: dict[str, State] = {}
        self._updated = 0.0
        self._live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None

    def __enter__(self) -> "View":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.update()
        if self._live:
            self._live.stop()

    def __call__(self) -> None:
        """Update the view if the last update is long enough ago."""
        if time.monotonic() - self._updated >= UPDATE_SECONDS:
            self.update()

    def update(self) -> None:
        """Read the states of all cells and show what has changed."""
        settled = {key for key, state in self.states.items() if state is State.DONE}
        states = {
            cell.id: State.DONE if cell.id in settled else state_of(self.root / cell.id) for cell in self.sweep.cells
        }
        if self._live:
            self._live.update(table(self.sweep, self.root, states, self.console.height - 3), refresh=True)
        else:
            self._print_changes(states)
        self.states, self._updated = states, time.monotonic()

    def _print_changes(self, states: dict[str, State]) -> None:
        done = sum(state is State.DONE for state in states.values())
        for cell in self.sweep.cells:
            state = states[cell.id]
            if state is not self.states.get(cell.id, State.TODO):
                reason = f": {failed_because(self.root / cell.id)}" if state is State.FAILED else ""
                self.console.print(
                    f"[{done}/{len(states)}] {cell.id} {cell.label}: {state}{reason}",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )

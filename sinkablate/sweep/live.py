"""How a sweep stands, on the terminal: a line per cell, kept up to date, or a line per change in a file."""

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
EVERY = 0.5
"""Seconds between two looks at the directories."""


def say_of(cell: Cell, state: State, root: Path) -> str:
    """The last words of a cell: what it is doing, or why it failed."""
    if state is State.FAILED:
        return failed_because(root / cell.id)
    return last_line(root / cell.id) if state is State.RUNNING else ""


def totals(states: dict[str, State]) -> str:
    """Number of cells in every state that occurs."""
    counts = Counter(states.values())
    return ", ".join(f"{counts[state]} {state}" for state in State if counts[state])


def table(sweep: Sweep, root: Path, states: dict[str, State], limit: int | None = None) -> Table:
    """A line per cell; with a limit those that are running or failed come first, and the rest is counted."""
    shown = list(sweep.cells)
    if limit is not None and len(shown) > limit:
        order = [State.RUNNING, State.FAILED, State.PREEMPTED, State.TODO, State.DONE]
        shown = sorted(shown, key=lambda cell: order.index(states[cell.id]))[: max(limit, 0)]
    title = f"{sweep.name}: {totals(states)}"
    made = Table(title=title, title_justify="left", show_header=False, box=None, expand=True)
    for name in ("id", "cell", "state"):
        made.add_column(name, no_wrap=True)
    made.add_column("words", no_wrap=True, overflow="ellipsis", ratio=1)  # what is cut where all does not fit
    for cell in shown:
        state = states[cell.id]
        made.add_row(cell.id, cell.label, Text(state, style=COLORS[state]), Text(say_of(cell, state, root)))
    return made


class View:
    """Shows a sweep while it runs; call it as often as you like.

    Args:
        sweep: The sweep.
        root: Its directory.
        console: Where to.
    """

    def __init__(self, sweep: Sweep, root: Path, console: Console) -> None:
        self.sweep, self.root, self.console = sweep, root, console
        self.states: dict[str, State] = {}
        self._looked = 0.0
        self._live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None

    def __enter__(self) -> "View":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.look()
        if self._live:
            self._live.stop()

    def __call__(self) -> None:
        """Look at the directories if the last look is long enough ago."""
        if time.monotonic() - self._looked >= EVERY:
            self.look()

    def look(self) -> None:
        """Look at the directories and show what has changed."""
        settled = {key for key, state in self.states.items() if state is State.DONE}
        now = {
            cell.id: State.DONE if cell.id in settled else state_of(self.root / cell.id) for cell in self.sweep.cells
        }
        if self._live:
            self._live.update(table(self.sweep, self.root, now, self.console.height - 3), refresh=True)
        else:
            self._print_changes(now)
        self.states, self._looked = now, time.monotonic()

    def _print_changes(self, now: dict[str, State]) -> None:
        done = sum(state is State.DONE for state in now.values())
        for cell in self.sweep.cells:
            state = now[cell.id]
            if state is not self.states.get(cell.id, State.TODO):
                words = f": {failed_because(self.root / cell.id)}" if state is State.FAILED else ""
                self.console.print(
                    f"[{done}/{len(now)}] {cell.id} {cell.label}: {state}{words}",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )

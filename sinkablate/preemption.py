"""Signals that ask a run to stop. Their handlers only take a note: the run stops where it can go on from.

Imported before anything heavy, so that a signal during the imports is noted too. Standard library only.
"""

import signal
from types import FrameType

EXIT_CODE = 75
"""EX_TEMPFAIL: the run was stopped, has saved itself and wants to be started again."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

_noted: list[int] = []


class Preempted(SystemExit):
    """Ends the process after the run was stopped and saved."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


def _note(number: int, _frame: FrameType | None) -> None:
    _noted.append(number)


def listen() -> None:
    """Put the handlers in place, in front of whatever is there."""
    for number in SIGNALS:
        signal.signal(number, _note)


def asked() -> str | None:
    """Name of the first signal that came in; None as long as none did."""
    return signal.Signals(_noted[0]).name if _noted else None


def forget() -> None:
    """As if no signal had come: a process that trains several times begins anew."""
    _noted.clear()

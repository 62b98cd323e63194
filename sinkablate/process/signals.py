"""Signals that ask a process to stop. Standard library only: imported before anything heavy.

SIGTERM, SIGUSR1, SIGHUP and SIGQUIT are only noted; a run saves itself at the next step boundary and exits with 75.
Ctrl-C (SIGINT) does the same while a run trains, with exit code 130; everywhere else there is nothing to save, and it
ends the command with one line. A second Ctrl-C ends the process at once. SIGHUP, SIGQUIT and SIGINT stay ignored where
they were when the process started, so that `nohup` works. SIGTERM and SIGUSR1 do not: a job script ignores them only
until Python listens.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

EXIT_CODE = 75
"""EX_TEMPFAIL: the run was stopped, has saved itself and wants to be started again."""
INTERRUPTED = 130
"""What a shell reports of a program that Ctrl-C ended."""
STOPPED = (EXIT_CODE, INTERRUPTED)
"""Exit codes of a run that was stopped and can be resumed."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGQUIT)
_STAY_IGNORED = (signal.SIGHUP, signal.SIGQUIT, signal.SIGINT)

_noted: list[int] = []
_interrupted: list[int] = []
_process = os.getpid()


class Preempted(SystemExit):
    """Ends the process after the run was stopped and saved."""

    def __init__(self) -> None:
        super().__init__(INTERRUPTED if signal.SIGINT in _noted[:1] else EXIT_CODE)


def listen(*, training: bool = False) -> None:
    """Put the handlers in place, in front of whatever is there.

    Args:
        training: Note Ctrl-C too, because there is something to save.
    """
    for number in SIGNALS:
        handle(number, _note)
    if training:
        handle(signal.SIGINT, _note_interrupt)


def handle(number: int, handler: Any) -> None:
    """Install a handler, unless the signal is one that stays ignored."""
    if number not in _STAY_IGNORED or signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, handler)


def after_training() -> None:
    """Let Ctrl-C end the command at once again: no training step follows at which a run would save itself."""
    handle(signal.SIGINT, _interrupt)


def restore(handlers: Mapping[Any, Any]) -> None:
    """Put handlers back; None stands for one that Python did not install and cannot put back."""
    for number, handler in handlers.items():
        if handler is not None:
            signal.signal(number, handler)


@contextlib.contextmanager
def ending_on_interrupt() -> Iterator[None]:
    """Within this block, Ctrl-C raises `KeyboardInterrupt`; a second one ends the process at once.

    Handlers that the block installs are undone: a process may run several commands.
    """
    global _process  # noqa: PLW0603
    if threading.current_thread() is not threading.main_thread():  # no place for handlers
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *SIGNALS)}
    _process = os.getpid()
    _interrupted.clear()
    handle(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        if before[signal.SIGINT] is signal.default_int_handler and signal.SIGINT in _interrupted + _noted:
            before[signal.SIGINT] = signal.SIG_DFL  # what is left is the end of the process: no traceback from there
        restore(before)


def interrupted() -> bool:
    """True when Ctrl-C ended what `ending_on_interrupt` surrounds, whatever a library made of the exception."""
    return bool(_interrupted)


def asked() -> str | None:
    """Name of the first signal that came in; None as long as none did."""
    return signal.Signals(_noted[0]).name if _noted else None


def forget() -> None:
    """As if no signal had come: a process that trains several times begins anew."""
    _noted.clear()


def _note(number: int, _frame: FrameType | None) -> None:
    _noted.append(number)


def _note_interrupt(number: int, _frame: FrameType | None) -> None:
    if os.getpid() != _process:  # a loader process: it got the Ctrl-C of the terminal too, and is still needed
        return
    if number in _noted:
        _end_now()
    _noted.append(number)
    _say("Ctrl-C: saving at the next training step; press it again to quit at once without saving")


def _interrupt(number: int, _frame: FrameType | None) -> None:
    if os.getpid() != _process:
        return
    if _interrupted:
        _end_now()
    _interrupted.append(number)
    raise KeyboardInterrupt


def _end_now() -> None:
    _say("interrupted again: quitting at once", "\x1b[?25h")  # a progress bar had hidden the cursor
    os._exit(INTERRUPTED)


def _say(line: str, then: str = "") -> None:
    """Write a line to stderr, on a terminal over the line of a progress bar; the first process speaks for all.

    A handler may run in the middle of a `print`, whose buffer must not be entered twice: hence `os.write`.
    """
    if os.environ.get("LOCAL_RANK", "0") == "0":
        with contextlib.suppress(OSError):
            os.write(2, f"\r\x1b[2K{line}\n{then}".encode() if os.isatty(2) else f"{line}\n".encode())

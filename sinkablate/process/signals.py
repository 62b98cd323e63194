"""Signals that stop a process. Standard library only, because this is imported before anything heavy.

SIGTERM, SIGUSR1, SIGHUP and SIGQUIT are only recorded; a run then saves itself at the next step boundary and exits with
code 75. Ctrl-C (SIGINT) does the same during training, with exit code 130; otherwise there is nothing to save, and it
ends the command with one line. A second Ctrl-C ends the process at once. SIGHUP, SIGQUIT and SIGINT stay ignored if
they were ignored when the process started, so that `nohup` works. SIGTERM and SIGUSR1 do not, because a job script
ignores them only until these handlers are installed.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

EXIT_CODE = 75
"""EX_TEMPFAIL: the run was stopped and saved, and should be started again."""
INTERRUPTED = 130
"""The exit code that a shell reports for a program ended by Ctrl-C."""
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


def install_handlers(*, training: bool = False) -> None:
    """Install the handlers in place of the current ones.

    Args:
        training: Record Ctrl-C too, because there is something to save.
    """
    for number in SIGNALS:
        set_handler(number, _note)
    if training:
        set_handler(signal.SIGINT, _note_interrupt)


def set_handler(number: int, handler: Any) -> None:
    """Install a handler, unless the signal has to stay ignored."""
    if number not in _STAY_IGNORED or signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, handler)


def training_ended() -> None:
    """Make Ctrl-C end the command at once again, because no step boundary follows at which the run would save."""
    set_handler(signal.SIGINT, _interrupt)


def current_handlers() -> dict[int, Any]:
    """Return the handlers of Ctrl-C and of the signals that stop a process, for `restore_handlers`."""
    return {number: signal.getsignal(number) for number in (signal.SIGINT, *SIGNALS)}


def restore_handlers(handlers: Mapping[Any, Any]) -> None:
    """Restore handlers; None is a handler that Python did not install and cannot restore."""
    for number, handler in handlers.items():
        if handler is not None:
            signal.signal(number, handler)


@contextlib.contextmanager
def end_on_interrupt() -> Iterator[None]:
    """Raise `KeyboardInterrupt` at Ctrl-C within the block; a second Ctrl-C ends the process at once.

    Handlers that the block installs are removed at its end, because a process may run several commands.
    """
    global _process  # noqa: PLW0603
    if threading.current_thread() is not threading.main_thread():  # handlers can only be installed in the main thread
        yield
        return
    before = current_handlers()
    _process = os.getpid()
    _interrupted.clear()
    set_handler(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        if before[signal.SIGINT] is signal.default_int_handler and signal.SIGINT in _interrupted + _noted:
            before[signal.SIGINT] = signal.SIG_DFL  # only the end of the process follows: no traceback
        restore_handlers(before)


def interrupted() -> bool:
    """Whether Ctrl-C ended the block of `end_on_interrupt`, even if a library converted the exception."""
    return bool(_interrupted)


def received() -> str | None:
    """Name of the first signal that was received; None if there was none."""
    return signal.Signals(_noted[0]).name if _noted else None


def reset() -> None:
    """Forget received signals, before another training run in the same process."""
    _noted.clear()


def _note(number: int, _frame: FrameType | None) -> None:
    _noted.append(number)


def _note_interrupt(number: int, _frame: FrameType | None) -> None:
    if os.getpid() != _process:  # a DataLoader worker also receives the Ctrl-C of the terminal, and is still needed
        return
    if number in _noted:
        _end_now()
    _noted.append(number)
    _write_line("Ctrl-C: saving at the next training step; press it again to quit at once without saving")


def _interrupt(number: int, _frame: FrameType | None) -> None:
    if os.getpid() != _process:
        return
    if _interrupted:
        _end_now()
    _interrupted.append(number)
    raise KeyboardInterrupt


def _end_now() -> None:
    _write_line(
        "interrupted again: quitting at once", "\x1b[?25h"
    )  # shows the cursor again, which a progress bar hides
    os._exit(INTERRUPTED)


def _write_line(line: str, suffix: str = "") -> None:
    """Write a line to stderr from the first process only; on a terminal it replaces the line of a progress bar.

    `os.write` is used because a handler may run in the middle of a `print`, whose buffer is not reentrant.
    """
    if os.environ.get("LOCAL_RANK", "0") == "0":
        with contextlib.suppress(OSError):
            os.write(2, f"\r\x1b[2K{line}\n{suffix}".encode() if os.isatty(2) else f"{line}\n".encode())

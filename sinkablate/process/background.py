"""Work that a thread does while training continues. Standard library only."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Background:
    """Runs tasks in a thread, one after the other; their exceptions are raised by `wait`.

    Args:
        name: Name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._pending: list[Future[None]] = []

    def submit(self, task: Callable[[], None]) -> None:
        """Run a task after those that were submitted before."""
        self._pending.append(self._thread.submit(task))

    @property
    def busy(self) -> bool:
        """Whether a task has not finished yet."""
        return any(not future.done() for future in self._pending)

    def wait(self) -> None:
        """Wait for all tasks; raises the first exception of those submitted since the last call."""
        pending, self._pending = self._pending, []
        for future in pending:
            future.result()

"""Errors in data, and what happens when one occurs. Standard library only."""

import logging
import multiprocessing
from typing import Literal, get_args

from sinkablate.errors import UserError

Reason = Literal[
    "empty file",
    "unreadable file",
    "cannot be decoded",
    "too many pixels",
    "unknown range of pixels",
    "number of channels",
    "too small",
    "no image or no label",
    "several images",
    "key given twice",
    "wrong label",
    "unreadable shard",
]
REASONS: tuple[Reason, ...] = get_args(Reason)
"""Why a sample or a shard is skipped: the keys of `skipped` in `summary.json`."""

log = logging.getLogger(__name__)


class DataError(UserError):
    """A shard or sample that cannot be read or has invalid content.

    torch re-raises an exception of a DataLoader worker as `type(error)("Caught … Traceback …")`. The user should read
    the original message, which is everything after the name of this class in that text.
    """

    def __init__(self, message: str, reason: Reason = "unreadable shard") -> None:
        super().__init__(message.rsplit(f"{__name__}.{type(self).__name__}: ", 1)[-1])
        self.reason: Reason = reason


class ErrorPolicy:
    """Stops at an unreadable shard or sample, or skips and counts it, depending on `data.source.on_error`.

    The counts include all DataLoader workers of this process.
    """

    def __init__(self, mode: Literal["stop", "skip"]) -> None:
        self.mode = mode
        self._counts = multiprocessing.Array("q", len(REASONS))

    @property
    def counts(self) -> dict[str, int]:
        """Number of samples skipped so far and of shards skipped as a whole, by reason."""
        with self._counts:
            return {reason: count for reason, count in zip(REASONS, self._counts[:], strict=True) if count}

    def handle(self, error: DataError, count: int = 1) -> None:
        """Raise the error, or log it and count it.

        Args:
            error: The error.
            count: Number of samples that are lost.

        Raises:
            DataError: The error, with a hint to set `data.source.on_error`, when the mode is `stop`.
        """
        if self.mode == "stop":
            raise DataError(f"{error}; to skip such samples, set data.source.on_error=skip", error.reason)
        with self._counts:
            self._counts[REASONS.index(error.reason)] += count
        log.warning("skipped: %s", error)

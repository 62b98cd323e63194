"""The exception that a user's mistake raises; `__main__` prints it as one line and exits with code 2."""

from collections.abc import Collection


class UserError(ValueError):
    """A mistake in what the user asked for.

    The message is a single line that names the key, file or shard at fault and, where possible, says what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def require_at_least(value: float | None, least: float, key: str) -> None:
    """Refuse a number below a limit; None passes.

    Raises:
        UserError: The number is too small; the message begins with `key`.
    """
    if value is not None and value < least:
        raise UserError(f"{key} must be at least {least}, got {value}")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, shortened; the name of its class if it is empty."""
    return shortened((str(error).strip().splitlines() or [type(error).__name__])[0])


def shortened(text: str, limit: int = 200) -> str:
    """Put a text on one line of at most `limit` characters: its first sentences, or its first words and an ellipsis."""
    text = " ".join(text.split())
    if len(text) <= limit:
        return text
    head = text[: limit - 1]
    sentences, period, _ = head.rpartition(". ")
    return sentences if period else f"{head.rpartition(' ')[0] or head} …"[:limit]


def listed(names: Collection[str], most: int = 8) -> str:
    """Return the first names, separated by commas, and how many more there are."""
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join([*names][:most]) + more


def printable(text: str) -> str:
    """Put text on one line and replace control characters, which could otherwise drive a terminal."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))

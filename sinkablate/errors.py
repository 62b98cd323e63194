"""The one exception a user's mistake raises; `__main__` prints it as one line and exits with 2."""


class UserError(Exception):
    """Something the user asked for cannot be done.

    The message is one line that names the key, file or shard at fault and, where there is one, the way out.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, cut to 200 characters; the name of its class if it is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip()[:200]


def printable(text: str) -> str:
    """Text on one line, without the characters by which a name could drive a terminal."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))

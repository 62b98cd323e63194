"""Command lines from typed functions, with one-line errors and no abbreviations."""

from collections.abc import Callable
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, auto_cli

from sinkablate.errors import UserError


class OneLineErrors:
    """Mixin of a parser: what it refuses becomes one `UserError`, whatever exceptions it is wrapped in."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the usage."""
        cause: BaseException | None = ex
        while cause is not None:
            if isinstance(cause, UserError):
                raise cause
            cause = cause.__cause__ or cause.__context__
        raise UserError(message) from ex


class Parser(OneLineErrors, ArgumentParser):
    """jsonargparse's parser with one-line errors."""


def run_function(function: Callable[..., Any], verb: str, argv: list[str]) -> int:
    """Run a typed, documented function as a verb."""
    auto_cli(function, args=argv, as_positional=True, parser_class=Parser, allow_abbrev=False,
             prog=f"python -m sinkablate {verb}")
    return 0

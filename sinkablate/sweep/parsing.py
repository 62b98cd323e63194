"""Reads the cells of a sweep as `fit` would, without parsing a whole command line for each of them."""

import json
import os
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf.errors import OmegaConfBaseException

from sinkablate.cli.library_messages import silence_libraries
from sinkablate.cli.lightning import Cli
from sinkablate.cli.tasks import chosen
from sinkablate.config import build
from sinkablate.distributed.fsdp2 import register
from sinkablate.errors import UserError
from sinkablate.run.cells import CONFIG, SEED, Cell
from sinkablate.sweep.grid import Sweep

SCALARS = (str, int, float, bool)


class ParsingCli(Cli):
    """Parses and checks the words of `fit`, and stops there."""

    def _set_seed(self) -> None:
        """Nothing is random here."""

    def before_instantiate_classes(self) -> None:
        """No directory is touched."""

    def instantiate_classes(self) -> None:
        """Nothing is built."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing runs."""


class CellParser:
    """Parses cells of a sweep.

    The words of a cell are parsed as a whole once for each combination of the values that need it: configs, and groups
    of keys. Where only values of single keys differ, these values alone are parsed, and checked together with the
    others of their group as `Cli.check` does.
    """

    def __init__(self) -> None:
        silence_libraries()
        register()
        self._clis: dict[str, ParsingCli] = {}
        self._values: dict[tuple[str, str, str], Any] = {}

    def cells(self, sweep: Sweep) -> Iterator[tuple[Cell, UserError | None]]:
        """Every cell that can be wrong in a way of its own, with what `fit` would say of it.

        Seeds make no difference to other keys: every combination of the other factors comes once, and so does every
        seed.
        """
        try:
            whole = self._parsed_whole(sweep)
        except UserError as error:
            yield sweep.cells[0], error
            return
        group: tuple[str, ...] | None = None
        for cell in sorted(_distinct(sweep.cells), key=lambda cell: [cell.factors[key] for key in whole]):
            values = tuple(cell.factors[key] for key in whole)
            try:
                if group != values or not self._fits(cell, whole):
                    group = None
                    self._parse(cell.words)
                    group = values
            except UserError as error:
                yield cell, error
            else:
                yield cell, None

    def same_values(self, sweep: Sweep) -> tuple[str, str, str] | None:
        """A swept key and two of its values that `fit` reads as the same; None without any."""
        for key, words in sweep.parameters.items():
            known: dict[str, str] = {}
            for word in words:
                first = known.setdefault(self._meaning(key, word), word)
                if first is not word:
                    return key, first, word
        return None

    def _meaning(self, key: str, word: str) -> str:
        """The same for two words that `fit` reads as the same value."""
        if key == CONFIG:
            return os.path.realpath(word)
        try:
            return repr(self._value(key, word))
        except (LookupError, TypeError, ValueError):
            pass
        try:
            return json.dumps(yaml.safe_load(word), sort_keys=True, default=str)
        except (yaml.YAMLError, ValueError, RecursionError):
            return word

    def _parsed_whole(self, sweep: Sweep) -> list[str]:
        """Swept keys whose values have to be parsed with the rest of the words."""
        self._parse(sweep.cells[0].words)
        followed = tuple(f"data.{follow.read}." for follow in self._cli.program.follows)
        return [
            key
            for key, words in sweep.parameters.items()
            if f"{key}.".startswith(followed) or not all(self._is_scalar(key, word) for word in words)
        ]

    def _is_scalar(self, key: str, word: str) -> bool:
        """True of a value that can be parsed by itself, or is wrong by itself."""
        try:
            return "${" not in word and word != "" and isinstance(self._value(key, word), SCALARS)
        except LookupError:
            return False
        except (TypeError, ValueError):
            return True

    def _value(self, key: str, word: str) -> Any:
        """The value of one key.

        Raises:
            LookupError: There is no such key, or it is a group of keys.
            TypeError, ValueError: It has another type.
        """
        place = (self._cli.task, key, word)
        if place not in self._values:
            parser = self._cli._parser(self._cli.verb)
            action = parser._option_string_actions[f"--{key}"]
            if not hasattr(action, "_typehint") and action.type is None:
                raise LookupError(key)
            self._values[place] = parser._check_value_key(action, word, key, None)
        return self._values[place]

    def _fits(self, cell: Cell, whole: Sequence[str]) -> bool:
        """True if a cell that shares some values with the one that was parsed last is all right."""
        try:
            keys = cell.factors.keys() - set(whole)
            for key in keys:
                self._config[key] = self._value(key, cell.factors[key])
            groups = self._cli.config_groups()
            touched = {key: [group for group in groups if key.startswith(f"{group}.")] for key in keys}
            for group in set(chain.from_iterable(touched.values())):
                build(groups[group], self._config[group].as_dict(), group)
            if not all(touched.values()):
                self._cli.check_names(self._config)
        except (LookupError, TypeError, ValueError, UserError):
            return False  # the parser says why
        return True

    def _parse(self, words: Sequence[str]) -> None:
        """Parse all words, which is slow."""
        try:
            task = chosen(words)
            if task in self._clis:
                self._cli = self._clis[task]
                self._cli.parse_arguments(self._cli.parser, [self._cli.verb, *words])
            else:
                self._cli = self._clis[task] = ParsingCli("fit", list(words))
        except (MisconfigurationException, OmegaConfBaseException) as error:
            raise UserError(str(error)) from error
        self._config: Namespace = self._cli.config[self._cli.verb]


def _distinct(cells: Sequence[Cell]) -> list[Cell]:
    """Cells that show all that can be wrong."""
    found: dict[object, Cell] = {}
    for cell in cells:
        found.setdefault(tuple((key, value) for key, value in cell.factors.items() if key != SEED), cell)
        found.setdefault(cell.factors.get(SEED), cell)
    return list({cell.id: cell for cell in found.values()}.values())

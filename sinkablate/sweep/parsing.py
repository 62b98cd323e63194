"""Parse the cells of a sweep as `fit` would, without parsing a complete command line for each of them."""

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
from sinkablate.cli.parser import config_groups
from sinkablate.cli.tasks import task_of
from sinkablate.cli.trainer_options import check_options
from sinkablate.config import build, flat
from sinkablate.distributed.fsdp2 import register
from sinkablate.errors import UserError
from sinkablate.run.cells import CONFIG, SEED, Cell
from sinkablate.sweep.grid import Sweep

SCALARS = (str, int, float, bool)


class ParsingCli(Cli):
    """Parse and check the command line of `fit`, but do not run it."""

    def _set_seed(self) -> None:
        """Do nothing: nothing is random here."""

    def before_instantiate_classes(self) -> None:
        """Do nothing: no directory is touched."""

    def instantiate_classes(self) -> None:
        """Do nothing: nothing is built."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Do nothing: nothing runs."""


class CellParser:
    """Parse cells of a sweep.

    A complete command line is parsed once for each combination of the values that require it: configs, and groups of
    keys. Where only the values of single keys differ, only these values are parsed, and checked together with the
    other values of their group as in `Cli.check`.
    """

    def __init__(self) -> None:
        silence_libraries()
        register()
        self._clis: dict[str, ParsingCli] = {}
        self._values: dict[tuple[str, str, str], Any] = {}
        self.parsed: list[tuple[Cell, dict[str, Any]]] = []
        """Cells whose complete command line was parsed, with all their keys and values."""

    def cells(self, sweep: Sweep) -> Iterator[tuple[Cell, UserError | None]]:
        """Yield every cell that could fail differently from the others, with the error that `fit` would raise.

        Seeds do not interact with other keys: every combination of the other factors appears once, and so does every
        seed.
        """
        try:
            complex_keys = self._complex_keys(sweep)
        except UserError as error:
            yield sweep.cells[0], error
            return
        group: tuple[str, ...] | None = None
        for cell in sorted(_distinct(sweep.cells), key=lambda cell: [cell.factors[key] for key in complex_keys]):
            values = tuple(cell.factors[key] for key in complex_keys)
            try:
                if group != values or not self._fits(cell, complex_keys):
                    group = None
                    self._parse(cell.words)
                    self.parsed.append((cell, flat(self._config.as_dict())))
                    group = values
            except UserError as error:
                yield cell, error
            else:
                yield cell, None

    def same_values(self, sweep: Sweep) -> tuple[str, str, str] | None:
        """Return a swept key and two of its values that `fit` parses as equal; None if there are none."""
        for key, words in sweep.parameters.items():
            known: dict[str, str] = {}
            for word in words:
                first = known.setdefault(self._canonical(key, word), word)
                if first is not word:
                    return key, first, word
        return None

    def _canonical(self, key: str, word: str) -> str:
        """Return text that is equal for two words that `fit` parses as the same value."""
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

    def _complex_keys(self, sweep: Sweep) -> list[str]:
        """Return the swept keys whose values have to be parsed together with the rest of the command line."""
        self._parse(sweep.cells[0].words)
        linked = tuple(f"data.{link.read}." for link in self._cli.task.links)
        return [
            key
            for key, words in sweep.parameters.items()
            if f"{key}.".startswith(linked) or not all(self._is_scalar(key, word) for word in words)
        ]

    def _is_scalar(self, key: str, word: str) -> bool:
        """Return whether a value can be parsed, or refused, without the other keys."""
        try:
            return "${" not in word and word != "" and isinstance(self._value(key, word), SCALARS)
        except LookupError:
            return False
        except (TypeError, ValueError):
            return True

    def _value(self, key: str, word: str) -> Any:
        """Parse the value of one key.

        Raises:
            LookupError: There is no such key, or it is a group of keys.
            TypeError, ValueError: The value has another type.
        """
        cached = (self._cli.task_name, key, word)
        if cached not in self._values:
            parser = self._cli._parser(self._cli.command)
            action = parser._option_string_actions[f"--{key}"]
            if not hasattr(action, "_typehint") and action.type is None:
                raise LookupError(key)
            self._values[cached] = parser._check_value_key(action, word, key, None)
        return self._values[cached]

    def _fits(self, cell: Cell, complex_keys: Sequence[str]) -> bool:
        """Return whether a cell is valid that has the same complex values as the cell parsed last."""
        try:
            keys = cell.factors.keys() - set(complex_keys)
            for key in keys:
                self._config[key] = self._value(key, cell.factors[key])
            groups = config_groups(self._cli._parser(self._cli.command))
            touched = {key: [group for group in groups if key.startswith(f"{group}.")] for key in keys}
            for group in set(chain.from_iterable(touched.values())):
                build(groups[group], self._config[group].as_dict(), group)
            if not all(touched.values()):
                check_options(self._config)
        except (LookupError, TypeError, ValueError, UserError):
            return False  # the complete parser says why
        return True

    def _parse(self, words: Sequence[str]) -> None:
        """Parse a complete command line, which is slow."""
        try:
            task = task_of(words)
            if task in self._clis:
                self._cli = self._clis[task]
                self._cli.parse_arguments(self._cli.parser, [self._cli.command, *words])
            else:
                self._cli = self._clis[task] = ParsingCli("fit", list(words))
        except (MisconfigurationException, OmegaConfBaseException) as error:
            raise UserError(str(error)) from error
        self._config: Namespace = self._cli.config[self._cli.command]


def _distinct(cells: Sequence[Cell]) -> list[Cell]:
    """Return cells that contain every combination of the other factors, and every seed."""
    distinct: dict[object, Cell] = {}
    for cell in cells:
        distinct.setdefault(tuple((key, value) for key, value in cell.factors.items() if key != SEED), cell)
        distinct.setdefault(cell.factors.get(SEED), cell)
    return list({cell.id: cell for cell in distinct.values()}.values())

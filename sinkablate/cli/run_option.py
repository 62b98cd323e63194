"""Expands `--run DIR` and finds the directory of a run from its configuration. Imports nothing heavy."""

from collections.abc import Sequence
from pathlib import Path

from sinkablate.errors import UserError
from sinkablate.files.strict_yaml import mapping_of
from sinkablate.run.directory import CONFIG, holds_run

READERS = ("validate", "test", "predict", "plan")
"""Commands that read a run and take `--run DIR`."""


def expand_run_option(command: str, words: Sequence[str]) -> list[str]:
    """Add `--run_dir` to the arguments of a command that reads the configuration of a run.

    The `config.yaml` of a run contains the directory in which the run was trained. The run may have been copied or
    moved since, so the directory that contains the file takes precedence, unless `--run_dir` is given. `--run DIR` is
    short for `--config DIR/config.yaml --run_dir DIR`.

    Args:
        command: Name of the command.
        words: Its arguments.

    Raises:
        UserError: `--run` does not name the directory of a run.
    """
    expanded: list[str] = []
    has_run_dir = any(word.partition("=")[0] == "--run_dir" for word in words)
    rest = iter(words)
    for word in rest:
        key, equals, value = word.partition("=")
        if key == "--run" and command in READERS:
            run = Path(value if equals else next(rest, ""))
            if not run.name or not (run / CONFIG).is_file():
                raise UserError(f"run={run if run.name else ''}: not the directory of a run (it contains no {CONFIG})")
            expanded += ["--config", str(run / CONFIG), "--run_dir", str(run)]
            expanded += ["--run", str(run)] if command == "plan" else []  # also reads its summary
        elif key in ("--config", "-c"):
            given = [word] if equals else [word, *([following] if (following := next(rest, None)) else [])]
            expanded += given
            path = Path(value if equals else given[-1])
            if not has_run_dir and path.name == CONFIG and mapping_of(path).get("run_dir") and holds_run(path.parent):
                expanded += ["--run_dir", str(path.parent)]
        else:
            expanded.append(word)
    return expanded

"""Find mistakes in the command line of `fit`, `validate`, `test`, `predict` or `plan` before the slow imports.

The parser checks everything again, so uncertain cases are left to it.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sinkablate.config.keys import first_names
from sinkablate.config.renames import refuse_renamed
from sinkablate.errors import UserError
from sinkablate.files.shipped import nearest_shipped
from sinkablate.files.suggestions import did_you_mean

_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


def check(command: str, argv: Sequence[str]) -> None:
    """Refuse mistakes that can be found from the command line, the config files and the run directory alone.

    Raises:
        UserError: A word belongs to no option, a group of keys is unknown, a config file cannot be read, or `fit` would
            overwrite a run.
    """
    from sinkablate.run.directory import version_note, writer_of

    options = list(_options(command, argv))
    names = first_names(command)
    for key, _ in options:
        _require_known(key, names, f"--{key}")
    refuse_renamed(dict.fromkeys(key for key, _ in options))
    contents = [_content(Path(value)) for key, value in options if key == "config" and value]
    for path, content in contents:
        for key in content:
            _require_known(str(key), names, f"{path}: {key}", version_note(path))
        if not writer_of(path):  # the parser gives renamed keys in the file of a run their current names
            refuse_renamed(content, f"{path}: ")
    if command == "fit" and _first_rank():
        _check_run_dir(options, [content for _, content in contents])


def _options(command: str, argv: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield the key and the value of each option; the value of a flag is None."""
    position = 0
    while position < len(argv):
        word, following = argv[position], argv[position + 1] if position + 1 < len(argv) else "--"
        position += 1
        word = {"-c": "--config", "-h": "--help"}.get(word, word)
        if not word.startswith("--"):
            path = word.endswith((".yaml", ".yml"))
            raise UserError(
                f"{command}: {word} does not belong to an option; "
                + (f"to use a config file, write --config {word}" if path else "write --KEY before every value")
            )
        key, equals, value = word[2:].partition("=")
        if not equals and not following.startswith("--"):
            value, position = following, position + 1
        yield key.rstrip("+").replace("-", "_"), value or None


def _require_known(key: str, names: set[str], shown: str, note: str = "") -> None:
    first = key.partition(".")[0]
    if first not in names:
        near = did_you_mean(first, names)
        raise UserError(f"{shown}: no such key or group of keys" + (near or "; --help lists the groups") + note)


def _content(path: Path) -> tuple[Path, dict[Any, Any]]:
    """Return the keys of a config file; the parser reports what else is wrong with it.

    Raises:
        UserError: There is no such file, or it is not YAML or not a mapping.
    """
    import yaml

    from sinkablate.files.strict_yaml import load_yaml

    if not path.exists():
        near = nearest_shipped("configs", str(path)) or "; `sinkablate fit --help` lists the shipped configs"
        raise UserError(f"config={path}: no such file{near}")
    if path.is_dir():
        raise UserError(f"config={path}: is a directory; name a YAML file")
    if not path.is_file():  # a pipe, which can only be read once
        return path, {}
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"config={path}: not a YAML file ({error.problem}{line})") from None
    except (yaml.YAMLError, OSError, UnicodeDecodeError):
        return path, {}
    if not isinstance(content, dict):
        kind = "it is empty" if content is None else f"it is a {type(content).__name__}"
        raise UserError(f"config={path}: contains no keys ({kind}); a config is a mapping, such as `variant: baseline`")
    return path, content


def _first_rank() -> bool:
    """Return whether this is rank 0, which creates the run directory."""
    return next((os.environ[name] for name in _RANKS if name in os.environ), "0") == "0"


def _check_run_dir(options: list[tuple[str, str | None]], contents: list[dict[Any, Any]]) -> None:
    """Refuse to overwrite a run unless an option or a config file might allow it, and other files in any case."""
    from sinkablate.run.directory import refuse_foreign_files, refuse_to_overwrite

    keys = {key for key, _ in options}.union(*contents)
    run_dirs = [value for key, value in options if key == "run_dir"]
    if not run_dirs or not run_dirs[-1] or "print_config" in keys:
        return
    run_dir = Path(run_dirs[-1])
    refuse_foreign_files(run_dir)
    if not keys & {"overwrite", "ckpt_path"}:
        refuse_to_overwrite(run_dir, resumes=False, overwrite=False)

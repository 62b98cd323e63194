"""Which directory a command means that is given the configuration of a run; nothing heavy is imported."""

from collections.abc import Sequence
from pathlib import Path

from sinkablate.errors import UserError
from sinkablate.files.strict_yaml import mapping_of
from sinkablate.run.directory import CONFIG, holds_run

READERS = ("validate", "test", "predict")
"""Commands that read a run; `--run DIR` names it."""


def located(verb: str, words: Sequence[str]) -> list[str]:
    """The words of a command with the directory of the run spelled out that its configuration lies in.

    `config.yaml` of a run names the directory in which the run was trained. The run may have been copied or moved
    since, so the directory that holds the file decides, unless `--run_dir` is given. `--run DIR` is short for both.

    Raises:
        UserError: `--run` names no directory of a run.
    """
    found: list[str] = []
    own = any(word.partition("=")[0] == "--run_dir" for word in words)
    rest = iter(words)
    for word in rest:
        key, equals, value = word.partition("=")
        if key == "--run" and verb in READERS:
            run = Path(value if equals else next(rest, ""))
            if not run.name or not (run / CONFIG).is_file():
                raise UserError(f"run={run if run.name else ''} holds no {CONFIG}: not the directory of a run")
            found += ["--config", str(run / CONFIG), "--run_dir", str(run)]
        elif key in ("--config", "-c"):
            given = [word] if equals else [word, *([following] if (following := next(rest, None)) else [])]
            found += given
            path = Path(value if equals else given[-1])
            if not own and path.name == CONFIG and mapping_of(path).get("run_dir") and holds_run(path.parent):
                found += ["--run_dir", str(path.parent)]
        else:
            found.append(word)
    return found

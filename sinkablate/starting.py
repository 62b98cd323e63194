"""What a run starts from: a named checkpoint, the latest of its directory, other weights, or nothing."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning.fabric.utilities.rank_zero import rank_zero_only

from sinkablate.errors import UserError
from sinkablate.run_directory import (
    CONFIG,
    DONE,
    check_checkpoint,
    holds_run,
    last_checkpoint,
    refuse_to_overwrite,
    resumable,
)

AUTO = "auto"
"""Value of `ckpt_path`: the latest whole checkpoint of the run directory, if there is one."""

READERS = ("validate", "test", "predict")
"""Commands that read a run; `--run DIR` names it."""


def located(verb: str, words: Sequence[str]) -> list[str]:
    """The words of a command with the directory of the run spelled out that its configuration lies in.

    `config.yaml` of a run names the directory in which the run was trained. The run may have been copied or moved
    since, so the directory that holds the file decides, unless `--run_dir` follows. `--run DIR` is short for both.

    Raises:
        UserError: `--run` names no directory of a run.
    """
    found: list[str] = []
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
            if path.name == CONFIG and _names_run_dir(path) and holds_run(path.parent):
                found += ["--run_dir", str(path.parent)]
        else:
            found.append(word)
    return found


def _names_run_dir(path: Path) -> bool:
    """True of a configuration that says where its run is; what is wrong with the file is said by the parser."""
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, OSError, UnicodeDecodeError):
        return False
    return isinstance(content, dict) and bool(content.get("run_dir"))


def starting_point(verb: str, run_dir: Path, config: Any) -> str | None:
    """The checkpoint to load, as `ckpt_path` and the directory say; None for none.

    Args:
        verb: fit, validate, test or predict.
        run_dir: Directory of the run.
        config: All keys.

    Raises:
        UserError: There is no such checkpoint, or a `fit` would write over results.
        SystemExit: With 0, the run that is to go on has finished.
    """
    path = config.ckpt_path
    if path == AUTO and verb == "fit":
        return _latest(run_dir, overwrite=config.overwrite)
    if path == AUTO:
        path = None
    if verb == "fit":
        if path:
            check_checkpoint(Path(path), trains=True)
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            refuse_to_overwrite(run_dir, resumes=bool(path), overwrite=config.overwrite)
        return path
    return _used(Path(path)) if path else _trained_weights(verb, run_dir, config)


def _latest(run_dir: Path, *, overwrite: bool) -> str | None:
    """What `fit --ckpt_path auto` goes on from; None to start afresh."""
    if (run_dir / DONE).exists() and not overwrite:
        _say(f"run_dir={run_dir} holds a finished run: nothing to do")
        raise SystemExit(0)
    found, faults = (None, []) if overwrite else resumable(run_dir)
    for fault in faults:
        _say(f"passed over: {fault.removeprefix('ckpt_path=')}")
    _say(f"going on from {found}" if found else f"nothing to go on from in {run_dir}: a fresh start")
    return str(found) if found else None


def _say(line: str) -> None:
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        print(line, file=sys.stderr, flush=True)


def _trained_weights(verb: str, run_dir: Path, config: Any) -> str | None:
    """The run's last checkpoint, or None where the backbone brings weights of its own."""
    last = last_checkpoint(run_dir)
    if last.exists():
        return _used(last)
    backbone = config.model.get("backbone")
    if backbone and (backbone.pretrained or backbone.checkpoint):
        _say(f"weights: {backbone.checkpoint or f'pretrained {backbone.name}'}")
        return None
    raise UserError(f"{verb} needs weights: {last} does not exist; give --run DIR, --run_dir or --ckpt_path")


def _used(path: Path) -> str:
    """Say which weights a command reads."""
    _say(f"weights: {path} (step {check_checkpoint(path)['global_step']})")
    return str(path)

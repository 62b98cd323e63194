"""Run `fit`, `validate`, `test`, `predict` or `plan`, and turn errors of libraries into one line."""

import re
import sys
from pathlib import Path

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf.errors import OmegaConfBaseException

from sinkablate.cli.library_messages import silence_libraries
from sinkablate.cli.lightning import Cli
from sinkablate.distributed.fsdp2 import register
from sinkablate.errors import UserError, first_line
from sinkablate.files.suggestions import did_you_mean_or_list
from sinkablate.process.memory import is_out_of_memory
from sinkablate.run.cells import CONFIG, parse_words
from sinkablate.run.directory import version_note


def run_trainer(command: str, args: list[str], cli: type[Cli] = Cli) -> int:
    """Run a command of Lightning's trainer and return its exit code; every user's mistake is a `UserError`."""
    silence_libraries()
    register()
    argv, sys.argv = sys.argv, [sys.argv[0], command, *args]  # Lightning starts other ranks with it
    try:
        cli(command, args)
    except (MisconfigurationException, OmegaConfBaseException) as error:
        raise UserError(_of_checkpoint(str(error)) or str(error)) from error
    except UserError as error:
        raise UserError(f"{error}{_config_notes(args, str(error))}") from error
    except ValueError as error:
        if "Does not validate against any of the Union subtypes" not in str(error):
            raise
        reason = " ".join(str(error).partition("Errors:")[2].partition("Given value type:")[0].split())
        raise UserError(f"a class_path cannot be instantiated: {reason[:400]}") from error
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise UserError(
                f"out of memory ({first_line(error)}): use a smaller data.batch_size, data.eval_batch_size, "
                "diagnostics.batch_size, diagnostics.memory_mib or model, or model.backbone.grad_checkpointing=true; "
                "`sinkablate plan` estimates the memory of a run"
            ) from error
        if str(error).startswith("Early stopping conditioned on metric"):
            raise UserError(f"trainer.callbacks: {error}") from error
        if not _lost_process(error):
            raise
        print(
            "error: another process of this run has died; --ckpt_path auto resumes from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        raise SystemExit(1) from None
    finally:
        sys.argv = argv
    return 0


MONITOR = re.compile(r"ModelCheckpoint\(monitor='(?P<key>.*?)'\).*returned metrics: \[(?P<metrics>.*?)\]", re.DOTALL)
INTERVAL = re.compile(r"Invalid value for (?P<key>every_n_epochs|every_n_train_steps)=(?P<value>-?\d+)")


def _of_checkpoint(message: str) -> str | None:
    """Rewrite Lightning's message about a value of the group `checkpoint`, with its key; None for other messages."""
    if match := MONITOR.search(message):
        metrics = [name.strip(" '") for name in match["metrics"].split(",")]
        return (
            f"checkpoint.monitor={match['key']}: no such metric is logged{did_you_mean_or_list(match['key'], metrics)}"
        )
    if match := INTERVAL.search(message):
        return f"checkpoint.{match['key']}={match['value']}: must be at least 0"
    return None


def _config_notes(args: list[str], message: str) -> str:
    """Return which versions of sinkablate wrote the configs of a command line if one of their keys is unknown."""
    if "no such key" not in message or "wrote this file" in message:
        return ""
    paths = [value for key, value in parse_words(args) if key == CONFIG]
    return "".join(f"; {path}{note}" for path in paths if (note := version_note(Path(path))))


def _lost_process(error: BaseException) -> bool:
    """Return whether a collective failed because another rank is gone; gloo has no exception class for this."""
    return isinstance(error, torch.distributed.DistError) or "gloo/transport" in str(error)

"""Run `sinkablate COMMAND ...`. The list of commands is printed before anything heavy is imported."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from sinkablate import __version__
from sinkablate.cli.library_messages import announce_downloads
from sinkablate.errors import UserError
from sinkablate.files.suggestions import did_you_mean
from sinkablate.process import streams
from sinkablate.process.job_script import report_user_error
from sinkablate.process.signals import INTERRUPTED, end_on_interrupt, interrupted

COMMANDS = {
    "fit": "train a variant, with the sink diagnostics logged during training",
    "validate": "accuracy of a trained run on its validation images",
    "test": "accuracy of a trained run on its test images",
    "predict": "class probabilities of a trained run, as a parquet file",
    "plan": "what a fit would need: parameters, FLOPs, memory, steps, checkpoints, time; in seconds, without data",
    "diagnose": "what the sinks of a model do on a set of images: a timm model, a run, or a Hugging Face model",
    "evaluate": "how good the frozen features of a model are: neighbors, probes, dense tasks, next to their floors",
    "intervene": "edit one head at a time and measure the effect, to test the labels of a diagnosis",
    "sweep": "plan, run, submit, watch, evaluate and collect a grid of runs from one file, on any machine",
    "compare": "compare the runs of a tidy CSV or parquet table: effects of factors, and how many seeds they need",
    "report": "one interactive page with the figures and tables of any number of runs and diagnoses",
    "export": "write the model of a run as a folder for timm or a model hub, with a model card",
    "shards": "write WebDataset shards from an ImageFolder or IDX files",
}


def help_text() -> str:
    """Return the list of commands with one line each."""
    lines = "\n".join(f"  {command:<10} {line}" for command, line in COMMANDS.items())
    return (
        f"sinkablate {__version__}: train vision transformers and measure what their attention sinks compute\n\n"
        f"usage: sinkablate COMMAND [options]\n\n{lines}\n\n"
        "`sinkablate COMMAND --help` lists the options of a command."
    )


HELP = {"-h", "--help"}
TRAINER_COMMANDS = ("fit", "validate", "test", "predict", "plan")
"""Commands with the keys of a run."""
RESUMABLE = ("diagnose", "evaluate", "intervene")
"""Commands that keep finished work: the same command line resumes after it."""


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0; 2 with one line on stderr after a user's mistake; 130 with one line after Ctrl-C.
    """
    argv = list(sys.argv[1:] if args is None else args)
    streams.escape_unencodable()
    if not argv or argv[0] in HELP:
        print(help_text())
        return 0
    if argv[0] == "--version":
        print(__version__)
        return 0
    with end_on_interrupt():
        return _guarded(argv[0], argv[1:])


def _guarded(command: str, argv: list[str]) -> int:
    """Run a command; if it fails or is interrupted, print one line about it."""
    try:
        code = _naming_files(command, argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as error:
        streams.clear_status()
        print(f"error: {error}", file=sys.stderr)
        report_user_error(str(error))
        return 2
    except BaseException:
        streams.clear_status()
        if not interrupted():
            raise
        resume = "; the same command resumes after the finished part" if command in RESUMABLE else ""
        print(f"interrupted{resume}", file=sys.stderr)
        return INTERRUPTED


def _naming_files(command: str, argv: list[str]) -> int:
    """Run a command; an error of the operating system becomes one line that names the file."""
    try:
        return _run(command, argv)
    except OSError as error:
        if error.filename is None:
            raise
        raise UserError(f"{error.filename}: {error.strerror}") from error


def _run(command: str, argv: list[str]) -> int:
    """Import only what the command needs, and run it."""
    announce_downloads()
    if command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS) or f"; choose from {', '.join(COMMANDS)}"
        raise UserError(f"{command}: no such command{hint}")
    if any(word.split("=")[0] in HELP for word in argv):
        if command in TRAINER_COMMANDS and argv[-1] in HELP:
            from sinkablate.config.keys import overview

            print(overview(command, COMMANDS[command]))
            return 0
        from jsonargparse import set_parsing_settings

        set_parsing_settings(docstring_parse_attribute_docstrings=True)  # parses source files, so only for --help
    if command in TRAINER_COMMANDS:
        return _train(command, argv)
    with streams.status("loading ..."):
        run = _sweep() if command == "sweep" else _of_function(command)
    return run(argv)


def _train(command: str, argv: list[str]) -> int:
    """Run a command with the keys of a run. `fit` records signals from the start, because the imports take seconds."""
    from sinkablate.cli import early_checks
    from sinkablate.cli.run_option import expand_run_option
    from sinkablate.files.shipped import resolve_config_names
    from sinkablate.process import signals

    argv = expand_run_option(command, resolve_config_names(argv))
    if not HELP & set(argv):
        early_checks.check(command, argv)
    if command == "fit":
        signals.reset()
        signals.install_handlers()
    with streams.status("loading PyTorch and Lightning ..."):
        from sinkablate.cli.trainer_command import run_trainer

        if command == "plan":
            from sinkablate.plan.command import PlanCli

    if command == "plan":
        return run_trainer("fit", argv, PlanCli)
    return run_trainer(command, argv)


def _sweep() -> Callable[[list[str]], int]:
    from sinkablate.sweep.command import main as sweep

    return sweep


def _of_function(command: str) -> Callable[[list[str]], int]:
    """Return a function that runs a command whose options are the arguments of one function."""
    from sinkablate.cli.parser import gathered, run_function

    function, to_text = FUNCTIONS[command]()
    return lambda argv: run_function(function, command, gathered(argv) if command == "report" else argv, to_text)


Function = tuple[Callable[..., Any], Callable[[Any], str] | None]
"""The function that a command calls with its options, and how its result is printed, if it is."""


def _compare() -> Function:
    from sinkablate.compare.command import compare

    return compare, str


def _diagnose() -> Function:
    from sinkablate.diagnose.command import diagnose

    return diagnose, None


def _evaluate() -> Function:
    from sinkablate.evaluate.command import evaluate

    return evaluate, None


def _export() -> Function:
    from sinkablate.export.command import export

    return export, None


def _intervene() -> Function:
    from sinkablate.intervene.command import intervene

    return intervene, None


def _report() -> Function:
    from sinkablate.report.command import report

    return report, str


def _shards() -> Function:
    from sinkablate.data.shards import write_shards

    return (
        write_shards,
        lambda counts: f"{sum(counts.values())} images in {len(counts)} shard{'' if len(counts) == 1 else 's'}",
    )


FUNCTIONS = {
    "compare": _compare,
    "diagnose": _diagnose,
    "evaluate": _evaluate,
    "export": _export,
    "intervene": _intervene,
    "report": _report,
    "shards": _shards,
}
"""Commands whose options are the arguments of one function."""


if __name__ == "__main__":
    sys.exit(main())

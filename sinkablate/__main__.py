"""`python -m sinkablate VERB …`. The list of verbs is answered before anything heavy is imported."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from sinkablate import __version__
from sinkablate.errors import UserError
from sinkablate.files.suggestions import did_you_mean
from sinkablate.process import streams
from sinkablate.process.job_script import report_user_error
from sinkablate.process.signals import INTERRUPTED, end_on_interrupt, interrupted

VERBS = {
    "fit": "train a variant, with sink diagnostics logged as it trains",
    "validate": "accuracy of a trained run on its validation images",
    "test": "accuracy of a trained run on its test images",
    "predict": "class probabilities of a trained run, as a parquet file",
    "plan": "what a fit would need: parameters, FLOPs, memory, steps, checkpoints; without data, in seconds",
    "diagnose": "what the sinks of a model do on a set of images: a timm model, a run, or one of Hugging Face",
    "intervene": "edit one head at a time and watch the network: what the labels of a diagnosis are worth",
    "sweep": "plan, run, submit, watch, retry and collect a grid of runs: one file, any machine",
    "compare": "what a table of runs says about its factors, and how many seeds it takes: any tidy CSV or parquet",
    "report": "one interactive page, figures and tables of any number of runs and diagnoses",
    "shards": "write WebDataset shards from an ImageFolder or IDX files",
}


def help_text() -> str:
    """Every verb with one line."""
    lines = "\n".join(f"  {verb:<10} {line}" for verb, line in VERBS.items())
    return (
        f"sinkablate {__version__}: train vision transformers and measure what their attention sinks compute\n\n"
        f"usage: python -m sinkablate VERB [options]\n\n{lines}\n\n"
        "`python -m sinkablate VERB --help` lists the options of a verb."
    )


HELP = {"-h", "--help"}
TRAINER_VERBS = ("fit", "validate", "test", "predict", "plan")
"""Verbs with the keys of a run."""
RESUMED = ("diagnose", "intervene")
"""Verbs that keep what they have finished: the same command resumes after it."""


def main(args: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        The exit code: 0; 2 with one line on stderr for a user's mistake; 130 with one line after Ctrl-C.
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


def _guarded(verb: str, argv: list[str]) -> int:
    """Run a verb, and tell in one line how it ended where it did not end well."""
    try:
        code = _naming_files(verb, argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read, such as `head`, has seen enough
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
        resume = "; the same command resumes after what is finished" if verb in RESUMED else ""
        print(f"interrupted{resume}", file=sys.stderr)
        return INTERRUPTED


def _naming_files(verb: str, argv: list[str]) -> int:
    """Run a verb; an error of the operating system about a file becomes one line with the file's name."""
    try:
        return _run(verb, argv)
    except OSError as error:
        if error.filename is None:
            raise
        raise UserError(f"{error.filename}: {error.strerror}") from error


def _run(verb: str, argv: list[str]) -> int:
    """Import what the verb needs, and no more."""
    if verb not in VERBS:
        raise UserError(f"unknown verb {verb}; there are {', '.join(VERBS)}{did_you_mean(verb, VERBS)}")
    if any(word.split("=")[0] in HELP for word in argv):
        if verb in TRAINER_VERBS and argv[-1] in HELP:
            from sinkablate.config.keys import overview

            print(overview(verb, VERBS[verb]))
            return 0
        from jsonargparse import set_parsing_settings

        set_parsing_settings(docstring_parse_attribute_docstrings=True)  # reads sources, so only for whoever asks
    if verb in TRAINER_VERBS:
        return _train(verb, argv)
    with streams.status("loading ..."):
        run = _sweep() if verb == "sweep" else _of_function(verb)
    return run(argv)


def _train(verb: str, argv: list[str]) -> int:
    """A verb with the keys of a run; signals are noted from the start: the imports take seconds."""
    from sinkablate.cli import early_checks
    from sinkablate.cli.run_option import expand_run_option
    from sinkablate.files.shipped import resolve_config_names
    from sinkablate.process import signals

    argv = expand_run_option(verb, resolve_config_names(argv))
    if not HELP & set(argv):
        early_checks.check(verb, argv)
    if verb == "fit":
        signals.reset()
        signals.install_handlers()
    with streams.status("loading PyTorch and Lightning ..."):
        from sinkablate.cli.trainer_command import run_trainer

        if verb == "plan":
            from sinkablate.cli.plan import PlanCli

    if verb == "plan":
        return run_trainer("fit", argv, PlanCli)
    return run_trainer(verb, argv)


def _sweep() -> Callable[[list[str]], int]:
    from sinkablate.sweep.command import main as sweep

    return sweep


def _of_function(verb: str) -> Callable[[list[str]], int]:
    """What runs a verb whose options are the arguments of one function."""
    from sinkablate.cli.parser import gathered, run_function

    function, tell = FUNCTIONS[verb]()
    return lambda argv: run_function(function, verb, gathered(argv) if verb == "report" else argv, tell)


Function = tuple[Callable[..., Any], Callable[[Any], str] | None]
"""What a verb calls with its options, and what it prints of the result."""


def _compare() -> Function:
    from sinkablate.compare.command import compare

    return compare, str


def _diagnose() -> Function:
    from sinkablate.diagnose.command import diagnose

    return diagnose, None


def _intervene() -> Function:
    from sinkablate.intervene.command import intervene

    return intervene, None


def _report() -> Function:
    from sinkablate.report.command import report

    return report, str


def _shards() -> Function:
    from sinkablate.data.shards import write_shards

    return write_shards, lambda counts: f"{sum(counts.values())} images in {len(counts)} shards"


FUNCTIONS = {"compare": _compare, "diagnose": _diagnose, "intervene": _intervene, "report": _report, "shards": _shards}
"""Verbs whose options are the arguments of one function."""


if __name__ == "__main__":
    sys.exit(main())

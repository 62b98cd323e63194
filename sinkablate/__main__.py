"""`python -m sinkablate VERB …`. The list of verbs is answered before anything heavy is imported."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from sinkablate import __version__
from sinkablate.errors import UserError
from sinkablate.job_script import tell_mistake

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
    return (f"sinkablate {__version__}: train vision transformers and measure what their attention sinks compute\n\n"
            f"usage: python -m sinkablate VERB [options]\n\n{lines}\n\n"
            "`python -m sinkablate VERB --help` lists the options of a verb.")


def main(args: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0, or 2 with one line on stderr for a user's mistake."""
    argv = list(sys.argv[1:] if args is None else args)
    if not argv or argv[0] in ("-h", "--help"):
        print(help_text())
        return 0
    if argv[0] == "--version":
        print(__version__)
        return 0
    try:
        code = _run(argv[0], argv[1:])
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        tell_mistake(str(error))
        return 2


def _run(verb: str, argv: list[str]) -> int:
    """Import what the verb needs, and no more."""
    if verb not in VERBS:
        raise UserError(f"unknown verb {verb}; there are {', '.join(VERBS)}")
    if {"-h", "--help"} & set(argv):
        from jsonargparse import set_parsing_settings

        set_parsing_settings(docstring_parse_attribute_docstrings=True)  # reads sources, so only for whoever asks
    if verb in FUNCTIONS:
        from sinkablate.arguments import gathered, run_function

        function, tell = FUNCTIONS[verb]()
        return run_function(function, verb, gathered(argv) if verb == "report" else argv, tell)
    if verb == "sweep":
        from sinkablate.sweep.command import main as sweep

        return sweep(argv)
    if verb == "plan":
        from sinkablate.cli import run_trainer
        from sinkablate.plan import PlanCli

        return run_trainer("fit", argv, PlanCli)
    if verb == "fit":
        from sinkablate.preemption import forget, listen

        forget()
        listen()  # before the imports, which take seconds
    from sinkablate.cli import run_trainer

    return run_trainer(verb, argv)


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
    from sinkablate.reporting import report

    return report, str


def _shards() -> Function:
    from sinkablate.data.shards import write_shards

    return write_shards, lambda counts: f"{sum(counts.values())} images in {len(counts)} shards"


FUNCTIONS = {"compare": _compare, "diagnose": _diagnose, "intervene": _intervene, "report": _report,
             "shards": _shards}
"""Verbs whose options are the arguments of one function."""


if __name__ == "__main__":
    sys.exit(main())

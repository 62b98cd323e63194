"""The figures of arXiv 2606.08105 from the runs of a report, numbered as in the paper."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sinkablate.errors import UserError
from sinkablate.figures.norms import norm_histograms
from sinkablate.figures.sinks import Drawn, save
from sinkablate.figures.stripes import AttentionMap, load_maps, stripes, two_algorithms
from sinkablate.report import panels, toys
from sinkablate.report.edits import edits
from sinkablate.report.run import Run, models
from sinkablate.run.reading import READ_ERRORS

DIAGNOSE = "python -m sinkablate diagnose --run DIR --out OUT"
SWEEP = "python -m sinkablate sweep run sweeps/paper"


@dataclass(frozen=True, kw_only=True)
class PaperFigure:
    """A figure of the paper."""

    numbers: str
    """Its numbers in the paper, such as `4_9` for figures 4 and 9, which differ only in their data."""
    name: str
    draw: Callable[[Sequence[Run], str], Drawn | None]
    """(runs, rule) -> the figure, or None if the runs do not hold its data."""
    command: str
    """What makes the data."""

    @property
    def file(self) -> str:
        """Name of its files, without a suffix."""
        return f"figure_{self.numbers}_{self.name}"


def _two_stripes(runs: Sequence[Run], rule: str) -> Drawn | None:
    """Draw a NOP head and a broadcast head of the diagnosed models, chosen by `two_algorithms`."""
    maps = []
    for run in runs:
        if run.stored_maps is not None:
            try:
                maps += [_with_null(shown, run) for shown in load_maps(run.stored_maps, run.name)]
            except (*READ_ERRORS, KeyError) as error:
                raise UserError(
                    f"{run.stored_maps}: damaged, or not attention maps written by sinkablate ({error})"
                ) from None
    limits = runs[0].limits
    chosen = two_algorithms(maps, limits["nop_max"], limits["broadcast_min"])
    names = dict(zip(("NOP", "broadcast"), chosen, strict=False))
    if len(names) < 2:
        return None
    title = "The same stripe, two algorithms: a head that does nothing (left) and one that broadcasts"
    return stripes(chosen, "the first image or sequence of each model", title=title)


def _with_null(shown: AttentionMap, run: Run) -> AttentionMap:
    """The map with the type `null` for the null token of a toy, which is stored as a register."""
    if run.register_name == "register":
        return shown
    return shown._replace(token_types=tuple("null" if kind == "register" else kind for kind in shown.token_types))


def _norms(runs: Sequence[Run], rule: str) -> Drawn | None:
    """Draw the distribution of token norms, variants overlaid."""
    groups = panels.by_variant([run for run in runs if run.norm_histograms is not None])
    tables = {
        name: [r.norm_histograms for r in group if r.norm_histograms is not None] for name, group in groups.items()
    }
    return norm_histograms(tables, panels.null_names(groups)) if tables else None


FIGURES = (
    PaperFigure(
        numbers="1",
        name="stripes",
        draw=_two_stripes,
        command=f"{DIAGNOSE}, of a model with a NOP head (configs/toy/nop.yaml) and of one with a broadcast head",
    ),
    PaperFigure(
        numbers="2",
        name="nop_toy",
        draw=lambda runs, rule: toys.values_and_spectrum(runs),
        command=f"{SWEEP}/toys_gamma.yaml --in_process",
    ),
    PaperFigure(
        numbers="3",
        name="broadcast_toy",
        draw=lambda runs, rule: toys.broadcast_layers(runs),
        command="python -m sinkablate fit --config configs/toy/broadcast.yaml",
    ),
    PaperFigure(numbers="4_9", name="handoff", draw=panels.handoff, command=DIAGNOSE),
    PaperFigure(numbers="5_10_11", name="frequency", draw=panels.frequency, command=DIAGNOSE),
    PaperFigure(numbers="5_10_11", name="entropy", draw=lambda runs, rule: panels.entropy(runs), command=DIAGNOSE),
    PaperFigure(numbers="6_8_12_13", name="atlas", draw=panels.atlas, command=DIAGNOSE),
    PaperFigure(
        numbers="7",
        name="formation",
        draw=lambda runs, rule: toys.formation(runs),
        command=f"{SWEEP}/toys_p.yaml --in_process, and toys_gamma.yaml likewise",
    ),
    PaperFigure(numbers="14", name="token_norms", draw=_norms, command=DIAGNOSE),
    PaperFigure(
        numbers="revision_6",
        name="edits",
        draw=lambda runs, rule: edits(runs),
        command="python -m sinkablate intervene --run DIR --out OUT",
    ),
    PaperFigure(
        numbers="revision_7b",
        name="pathway_arms",
        draw=lambda runs, rule: toys.arms(runs),
        command=f"{SWEEP}/pathway_arms.yaml --in_process, and for each of its runs python -m sinkablate intervene "
        "--run DIR --heads 1:0 --edits zero_value,donor_value,redirect,pathway --out OUT",
    ),
)


def write_paper_figures(folder: Path, runs: Sequence[Run], rule: str) -> tuple[int, list[str]]:
    """Write every figure of the paper that the runs allow, as PDF, PNG and CSV.

    Args:
        folder: Where to write; it is created.
        runs: The runs and diagnoses; each model is shown once.
        rule: The rule of all figures except those of edits, which use the labels of their intervention.

    Returns:
        The number of figures, and a line for each one whose data are missing, with the command that makes them.
    """
    folder.mkdir(parents=True)
    shown, missing = models(runs), []
    for figure in FIGURES:
        drawn = figure.draw(shown, rule)
        if drawn is None:
            missing.append(f"{figure.file}: no input holds its data; {figure.command}")
        else:
            save(drawn, folder / figure.file)
    return len(FIGURES) - len(missing), missing

"""The page of a report: one HTML file with its data, its scripts and plotly inside, which asks for nothing else."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from sinkablate import __version__
from sinkablate.figures.maps import Maps
from sinkablate.figures.sinks import LABEL_COLORS, MOVES, TYPE_COLORS, VARIANT_COLORS
from sinkablate.files.writing import json_text
from sinkablate.report.ablation import Ablation, page_ablation, task_metrics
from sinkablate.report.contents import KINDS, QUANTITIES, page_run, sinks, types_caveat
from sinkablate.report.runs import Run
from sinkablate.report.tables import page_sheets


def render_page(
    runs: Sequence[Run],
    maps: Mapping[str, Maps],
    ablation: Ablation | None,
    *,
    title: str,
    rule: str,
    metric: str,
    missing: Mapping[str, str],
    notes: Sequence[str],
) -> str:
    """The page.

    Args:
        runs: What is shown.
        maps: Attention maps by the name of the run.
        ablation: What panels 7 and 8 show.
        title: Of the page.
        rule: Chosen at the start.
        metric: Task metric chosen at the start.
        missing: Panel to what it lacks; such a panel is a note.
        notes: On what went in.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    content = json_text(page_data(runs, maps, ablation, rule, metric), indent=None, separators=(",", ":"))
    fits, count = sum(run.kind == "run" for run in runs), len(runs)
    lead = (
        f"{_several(fits, 'run')} and {_several(count - fits, 'diagnosis', 'diagnoses')}, "
        f"{_several(len({run.variant for run in runs}), 'variant')}. Choose what is shown, hover for numbers, "
        "click a point to choose what it stands for."
    )
    return environment.from_string(_file("page.html")).render(
        title=title,
        lead=lead,
        missing=missing,
        notes=list(notes),
        comparison=ablation and ablation.comparison,
        ablation_sheets=page_sheets(ablation),
        types_note=_sentence(types_caveat(runs)),
        footer=f"Made by sinkablate {__version__}.",
        css=Markup(_file("page.css")),
        data=Markup(content.replace("<", "\\u003c")),
        plotly=Markup(plotly()),
        panels_js=Markup(_file("panels.js")),
        page_js=Markup(_file("page.js")),
    )


def page_data(
    runs: Sequence[Run], maps: Mapping[str, Maps], ablation: Ablation | None, rule: str, metric: str
) -> dict[str, Any]:
    """Everything the scripts of the page read, as plain values."""
    pictures: dict[str, int] = {}
    shown = [page_run(run, maps.get(run.name), pictures) for run in runs]
    first = max(
        runs,
        key=lambda run: (
            run.kind == "run",
            run.name in maps,
            sum(sinks(run, rule).values()) if rule in run.rules else 0,
        ),
    )
    return {
        "runs": shown,
        "pictures": list(pictures),
        "kinds": KINDS,
        "quantities": QUANTITIES,
        "moves": MOVES,
        "label_colors": LABEL_COLORS,
        "type_colors": TYPE_COLORS,
        "variant_colors": VARIANT_COLORS,
        "metrics": task_metrics(runs),
        "ablation": None if ablation is None else page_ablation(ablation),
        "start": {"run": first.name, "rule": rule, "metric": metric},
    }


def plotly() -> str:
    """plotly's own script, as its Python package brings it."""
    return (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def _file(name: str) -> str:
    return (files("sinkablate.report") / "templates" / name).read_text(encoding="utf-8")


def _several(count: int, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or one + 's'}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""

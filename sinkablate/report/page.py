"""The page of a report: one HTML file that contains its data, its scripts and plotly, and makes no requests."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from sinkablate import __version__
from sinkablate.compare.comparison import Comparison
from sinkablate.figures.atlas import VALUES
from sinkablate.figures.maps import Maps
from sinkablate.figures.sensitivity import MOVES
from sinkablate.figures.sinks import LABEL_COLORS, TYPE_COLORS, VARIANT_COLORS
from sinkablate.files.writing import json_text
from sinkablate.report.ablation import Ablation, page_ablation, task_metrics
from sinkablate.report.contents import QUANTITIES, page_run
from sinkablate.report.edits import edit_titles
from sinkablate.report.events import KINDS, events_per_image, types_caveat
from sinkablate.report.quality import page_quality, quality_sheet, shown_metrics
from sinkablate.report.run import Run, kind_names, models
from sinkablate.report.tables import page_sheets

SCRIPTS = ("plots.js", "panels.js", "run_panels.js", "tables.js", "card.js", "page.js")
"""The scripts of the page, in the order in which they run."""


def render_page(
    runs: Sequence[Run],
    maps: Mapping[str, Maps],
    ablation: Ablation | None,
    quality: Sequence[Comparison],
    *,
    title: str,
    finding: Sequence[str],
    rule: str,
    metric: str,
    missing: Mapping[str, str],
    notes: Sequence[str],
) -> str:
    """Render the page.

    Args:
        runs: The runs to show.
        maps: Attention maps by run name.
        ablation: The comparison, if there is one.
        quality: Comparisons of the same cells by several metrics; empty if no run was evaluated.
        title: Title of the page.
        finding: The opening sentences.
        rule: The rule shown first.
        metric: The task metric shown first.
        missing: Panel -> what it lacks; such a panel is replaced by a note.
        notes: What a reader must know about the runs.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    content = json_text(page_data(runs, maps, ablation, quality, rule, metric), indent=None, separators=(",", ":"))
    return environment.from_string(_template("page.html")).render(
        title=title,
        finding=finding,
        lead=_lead(runs),
        one_model=len(models(runs)) == 1,
        missing=missing,
        notes=list(notes),
        comparison=ablation and ablation.comparison,
        ablation_sheets=page_sheets(ablation),
        quality_sheet=quality_sheet(quality),
        types_note=_sentence(types_caveat(runs)),
        footer=f"Made by sinkablate {__version__}. Numbers on this page have four significant digits; "
        "the files in figures/ have all digits.",
        css=Markup(_template("page.css")),
        data=Markup(content.replace("<", "\\u003c")),
        plotly=Markup(plotly()),
        scripts=[Markup(_template(name)) for name in SCRIPTS],
    )


def page_data(
    runs: Sequence[Run],
    maps: Mapping[str, Maps],
    ablation: Ablation | None,
    quality: Sequence[Comparison],
    rule: str,
    metric: str,
) -> dict[str, Any]:
    """Everything that the scripts of the page read, as plain values."""
    pictures: dict[str, int] = {}
    shown = [page_run(run, maps.get(run.name), pictures) for run in runs]
    first = max(
        runs,
        key=lambda run: (run.kind == "run", run.name in maps, events_per_image(run, rule) if rule in run.rules else 0),
    )
    return {
        "runs": shown,
        "pictures": list(pictures),
        "kinds": KINDS,
        "kind_names": kind_names(runs),
        "quantities": QUANTITIES,
        "moves": {name: label.replace("\n", " ") for name, label in MOVES.items()},
        "edits": {name: title.replace("\n", " ") for name, title in edit_titles(runs).items()},
        "rules": _definitions(runs),
        "values": VALUES | {name: name for name in _other_values(shown)},
        "label_colors": LABEL_COLORS,
        "type_colors": TYPE_COLORS,
        "variant_colors": VARIANT_COLORS,
        "metrics": task_metrics(runs),
        "ablation": None if ablation is None else page_ablation(ablation),
        "quality": shown_metrics(models(runs)),
        "quality_table": page_quality(quality),
        "start": {"run": first.name, "rule": rule, "metric": metric, "value": next(iter(VALUES))},
    }


def _other_values(shown: Sequence[Mapping[str, Any]]) -> list[str]:
    """Ratios of registered rules that the atlas shows in addition to `VALUES`."""
    atlases = [atlas for run in shown for atlas in (run["atlas"] or {}).values()]
    return [name for atlas in atlases for name in atlas["values"] if name not in VALUES]


def _definitions(runs: Sequence[Run]) -> dict[str, str]:
    """Name of each rule -> its definition, from the files of the runs."""
    lines = [str(line) for run in runs for line in run.summary.get("rules") or ()]
    return {name: text.strip() for name, colon, text in (line.partition(":") for line in lines) if colon}


def plotly() -> str:
    """The script of plotly, from its Python package."""
    return (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def _template(name: str) -> str:
    return (files("sinkablate.report") / "templates" / name).read_text(encoding="utf-8")


def _lead(runs: Sequence[Run]) -> str:
    """What the report contains."""
    fits = sum(run.kind == "run" for run in runs)
    variants = len({run.variant for run in runs})
    counts = [_several(fits, "run"), _several(len(runs) - fits, "diagnosis", "diagnoses")]
    present = [text for text, count in zip(counts, (fits, len(runs) - fits), strict=True) if count]
    return f"{' and '.join(present)}, {_several(variants, 'variant')}."


def _several(count: int, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or one + 's'}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""

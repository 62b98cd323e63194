"""One model as a report shows it: a run of `fit`, the output of `diagnose`, or both together."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl
from numpy import float32, int8
from numpy.typing import NDArray

from sinkablate.compare.directions import lower_is_better
from sinkablate.config import ThresholdConfig, build
from sinkablate.diagnostics.rules import all_rules
from sinkablate.figures.sinks import TYPE_COLORS, has_numbers
from sinkablate.figures.token_maps import StoredMaps
from sinkablate.run.directory import diverged
from sinkablate.run.schema import FINAL_PATCH_TOKENS, FINAL_TOKENS, LIMITS, METRICS, final_tokens

OWN_IMAGES = "the run's probe images"
"""How `diagnose` names its images when it measures a run on the images that `fit` measures it on."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One model and its measurements. A table that the directory does not hold is None."""

    name: str
    path: Path
    kind: Literal["run", "diagnosis"]
    variant: str
    seed: str
    """Empty for a diagnosis."""
    finished: bool
    step: int | None = None
    """Optimizer step of the last measurement."""
    config: dict[str, Any] = field(default_factory=dict)
    """Configuration of a run, dotted key to value."""
    summary: dict[str, Any] = field(default_factory=dict)
    """Content of summary.json; for an unfinished run, the last value of every metric."""
    evaluation: dict[str, float | str | None] = field(default_factory=dict)
    """Numbers of the evaluation next to the run by name, such as `knn/acc1`; see `evaluation_numbers`."""
    heads: pl.DataFrame | None = None
    """One row per block and head, from the last measurement."""
    blocks: pl.DataFrame | None = None
    """One row per block, from the last measurement."""
    sensitivity: pl.DataFrame | None = None
    """Events and labels over a grid of thresholds, as `diagnose` measures them."""
    edits: pl.DataFrame | None = None
    """One row per edited head and edit, as `intervene` measures it."""
    edits_rule: str = ""
    """The rule by which `intervene` labeled the heads of `edits`; empty if the files do not say."""
    metrics: pl.DataFrame | None = None
    """Rows of metrics.csv, by step."""
    formation: pl.DataFrame | None = None
    """Event frequency per step, block and head."""
    columns: pl.DataFrame | None = None
    """Mean attention that each column receives in a few heads on one image (`figures/stripes.csv` of a diagnosis)."""
    stored_maps: Path | None = None
    """File with the attention maps of a few heads on one image, from a diagnosis."""
    token_maps: StoredMaps | None = None
    """Norms of the tokens over the first images, from a diagnosis."""
    norm_histograms: pl.DataFrame | None = None
    """Histograms of token norms by block and token type, from the last measurement."""
    mass: NDArray[float32] | None = None
    """Mass on the dominant column, (images, blocks, heads), from a diagnosis."""
    dominant: NDArray[int8] | None = None
    """Type of the dominant column as its position in `TYPE_COLORS`, (images, blocks, heads), from a diagnosis."""
    image_names: tuple[str, ...] = ()
    """Names of the images of `mass`."""
    tokens: dict[str, int] = field(default_factory=dict)
    """Number of key columns of each token type; empty if the files do not say."""
    diagnosis_of: str = ""
    """Name of the entry in the same report whose model this diagnosis measured on other images or at another step."""
    run_id: str = ""
    """Identity of the run, or of the run whose weights a diagnosis measured; empty if the files do not say."""
    results_id: str = ""
    """Identity of the results of a run, which only its copies share; empty for a diagnosis."""

    @property
    def rules(self) -> list[str]:
        """Names of the rules whose labels were counted."""
        columns = [] if self.heads is None else self.heads.columns
        return [name.removesuffix("_frequency") for name in columns if name.endswith("_frequency")]

    @property
    def diverged(self) -> bool:
        """Whether the run was stopped because its loss became NaN or infinite."""
        return diverged(self.path)

    @property
    def token_types(self) -> list[str]:
        """Types of the key columns that the model has, according to the table of blocks."""
        if self.blocks is None:
            return []
        return [kind for kind in TYPE_COLORS if has_numbers(self.blocks, f"mass_{kind}")]

    @property
    def steps(self) -> int | None:
        """Number of optimizer steps that the model was trained for so far; None if that is unknown."""
        if self.kind != "run":
            return None
        last = None if self.metrics is None else self.metrics["step"].max()
        return next((n for n in (self.summary.get("steps"), last) if isinstance(n, int)), None)

    @property
    def epochs(self) -> int | None:
        """Number of epochs that the model was trained for; None if that is unknown."""
        count = self.summary.get("epochs")
        return count if isinstance(count, int) else None

    @property
    def state(self) -> str:
        """`finished`, `diverged` or `unfinished`."""
        return "diverged" if self.diverged else "finished" if self.finished else "unfinished"

    @property
    def limits(self) -> dict[str, float]:
        """The thresholds in `LIMITS` by which the run's events were labeled."""
        diagnosed = self.summary.get("thresholds") or {}
        candidates = {
            name: (self.config.get(f"diagnostics.thresholds.{name}"), diagnosed.get(name), default)
            for name, default in LIMITS.items()
        }
        return {name: float(next(v for v in values if v is not None)) for name, values in candidates.items()}

    def limits_of(self, rule: str) -> dict[str, dict[str, float]]:
        """Return the quantities by which a rule labels events, with their limits; empty for an unknown rule."""
        known = {known.name: known for known in all_rules(build(ThresholdConfig, self.limits), gated=True)}
        return known[rule].limits if rule in known else {}

    @property
    def final_tokens(self) -> str:
        """What the tokens whose change is the effect of an edit are called."""
        if self.kind == "run":
            return FINAL_TOKENS if self.config.get("task") == "toy" else FINAL_PATCH_TOKENS
        return final_tokens(self.summary)

    @property
    def register_name(self) -> str:
        """What the prefix tokens stored as `register` are: the NOP toy has a null token among them, or only that."""
        if self.config.get("model.toy.task") != "nop" or self.config.get("task") != "toy":
            return "register"
        return "null token or register" if self.config.get("model.toy.registers") else "null token"


def models(runs: Sequence[Run]) -> list[Run]:
    """The runs, without those that measure the model of another run again."""
    return [run for run in runs if not run.diagnosis_of]


def kind_names(runs: Sequence[Run]) -> dict[str, str]:
    """Names of the token types for a figure that shows these runs."""
    prefix = " or ".join(sorted({run.register_name for run in runs}, reverse=True)) or "register"
    names = {"cls": "CLS", "register": prefix, "null": "null column", "kv_bias": "k/v bias", "bos": "BOS", "sep": "SEP"}
    return {kind: names.get(kind, kind) for kind in TYPE_COLORS}


def evaluated(run: Run) -> dict[str, float]:
    """The numbers of the evaluation of a run that can be better or worse, by the first protocol of each task.

    Those of floors and the ends of intervals are left out.
    """
    return {
        name: value
        for name, value in run.evaluation.items()
        if isinstance(value, float)
        and name.count("/") == 1
        and lower_is_better(name) is not None
        and "@" not in name
        and not name.endswith(("_low", "_high"))
    }


def scalar_metrics(run: Run) -> dict[str, float]:
    """The numbers that a run ended with, without those of single blocks and of sinks, and those of its evaluation."""
    return evaluated(run) | {
        name: float(value)
        for name, value in run.summary.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and name.count("/") == 1
        and name.startswith(METRICS)
    }

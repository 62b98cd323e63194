"""Draw Figures 2, 3 and 7 of the paper and the pathway arms from the sweeps of the toys in `sweeps/paper/`.

    for sweep in toys_p toys_gamma pathway_arms; do
      python -m sinkablate sweep run sweeps/paper/$sweep.yaml --in_process; done
    python docs/figures/toys.py --runs runs --out docs/figures

The models of Figures 2 and 3 are those of seed 0. The arms also need the edits of every run of `runs/pathway_arms`:

    python -m sinkablate intervene --run RUN --heads 1:0 --edits zero_value,donor_value,redirect,pathway --limit 64 \
        --out EDITS/NAME      # NAME is the name of the run in its summary.json; `pathway` only where there is one
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from sinkablate.diagnose.from_run import load_from_run
from sinkablate.figures.sinks import Drawn, save
from sinkablate.figures.toys import broadcast_toy, formation_against, nop_toy, pathway_arms
from sinkablate.run.reading import read_yaml
from sinkablate.toys.figure_data import alignments, query_key_values, update_values, value_norms, views_of
from sinkablate.toys.formation import formation_points, history, intervals

ARMS = ["none", "pathway", "pathway_penalty"]
EDITS = {
    "zero_value": "sink: removed",
    "donor_value": "sink: donor",
    "redirect": "sink: redirected",
    "pathway_zero": "pathway: removed",
    "pathway_donor": "pathway: donor",
}
SEQUENCES = 128


def cells(root: Path) -> Iterator[tuple[Path, str, dict[str, Any]]]:
    """Yield directory, name and configuration of every finished run below a folder."""
    for summary in sorted(root.glob("*/summary.json")):
        config = read_yaml(summary.parent / "config.yaml")
        yield summary.parent, json.loads(summary.read_text())["name"], config


def seed_zero(root: Path, **toy: Any) -> Path:
    """Return the run of seed 0 whose toy has these values."""
    return next(
        run
        for run, _, config in cells(root)
        if config["seed_everything"] == 0 and all(config["model"]["toy"][key] == value for key, value in toy.items())
    )


def figure2(runs: Path) -> Drawn:
    """The NOP toy with a sink (gamma = 0) and without one (gamma = 1)."""
    norms, spectra = [], []
    for name, gamma in (("gamma = 0, sink", 0.0), ("gamma = 1, no sink", 1.0)):
        loaded = load_from_run(str(seed_zero(runs / "toys_gamma", gamma=gamma)))
        (view,) = views_of(loaded.model, loaded.probe_set(SEQUENCES).images)
        norms.append(value_norms(view).with_columns(model=pl.lit(name)))
        spectra.append(query_key_values(loaded.model).with_columns(model=pl.lit(name)))
    return nop_toy(pl.concat(norms), pl.concat(spectra))


def figure3(runs: Path) -> Drawn:
    """The broadcast toy without a pathway."""
    run = next(run for run, name, _ in cells(runs / "pathway_arms") if name.endswith("-none-s0"))
    loaded = load_from_run(str(run))
    assert loaded.toy is not None
    views = views_of(loaded.model, loaded.probe_set(SEQUENCES).images)
    norms, updates = (pl.concat(measure(view) for view in views) for measure in (value_norms, update_values))
    maps = [view.weights()[0, 0].numpy() for view in views]
    return broadcast_toy(maps, norms, alignments(loaded.model, loaded.toy.source_direction), updates)


def figure7(runs: Path) -> Drawn:
    """When the sink of the NOP toy forms, against p and gamma."""
    panels = []
    for name, key, sweep in (("p", "p_nop", "toys_p"), ("gamma", "gamma", "toys_gamma")):
        evaluations = pl.concat(
            history(
                pl.read_csv(run / "metrics.csv", infer_schema_length=None),
                config["model"]["toy"][key],
                config["seed_everything"],
            )
            for run, _, config in cells(runs / sweep)
        )
        points = formation_points(evaluations)
        panels.append((name, evaluations, intervals(points, "formed_step"), intervals(points, "final_mass")))
    return formation_against(panels)


def arms(edits: Path) -> Drawn:
    """The edits of the second block in the three arms."""
    tables = []
    for path in sorted(edits.glob("*/heads.parquet")):
        _, arm, seed = path.parent.name.split("-")
        table = pl.read_parquet(path).filter(pl.col("block") == 1).select("edit", "loss", "loss_edited")
        tables.append(table.with_columns(arm=pl.lit(arm), seed=pl.lit(int(seed[1:]))))
    return pathway_arms(pl.concat(tables), ARMS, EDITS)


def main() -> None:
    """Draw the figures whose runs exist."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the sweeps' directories")
    parser.add_argument("--edits", type=Path, help="folder of the interventions")
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    save(figure2(args.runs), args.out / "toy_values_and_spectrum")
    save(figure3(args.runs), args.out / "toy_broadcast_layers")
    save(figure7(args.runs), args.out / "toy_formation")
    if args.edits is not None:
        save(arms(args.edits), args.out / "toy_pathway_arms")


if __name__ == "__main__":
    main()

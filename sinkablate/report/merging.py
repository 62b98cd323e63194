"""Show each model once: leave out copies of a run, and merge a diagnosis into the run whose weights it measured."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sinkablate.errors import printable
from sinkablate.report.run import OWN_IMAGES, Run
from sinkablate.run.evaluations import treatment_phrase

UNKNOWN = "random"
"""What a diagnosis stores as the weights of an untrained model; two of them need not be the same."""
REGISTERS = "test_time_registers"
MEASURED_BY = ("images", "thresholds", "preprocessing", "position_embedding", REGISTERS)
"""Keys of a summary in which two measurements of the same weights must agree to be one."""


def without_copies(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Leave out the runs that are copies of an earlier one in the list.

    Returns:
        The other runs, and a line for each copy.
    """
    first: dict[str, Run] = {}
    kept, notes = [], []
    for run in runs:
        original = first.setdefault(run.results_id, run) if run.results_id else run
        if original is run:
            kept.append(run)
        else:
            notes.append(printable(f"Left out, a copy of {original.path}: {run.path}"))
    return kept, notes


def with_diagnoses(runs: Sequence[Run]) -> list[Run]:
    """Merge each diagnosis into the first entry of the list that shows its model, preferably a run of `fit`.

    A diagnosis on other images, of another size, at another step, by other thresholds, or with test-time registers
    remains a separate entry that names the model.
    """
    fits = [run for run in runs if run.kind == "run"]
    diagnoses = [run for run in runs if run.kind == "diagnosis"]
    owners: dict[str, Run] = {}
    for run in (*fits, *diagnoses):
        for key in _keys(run) if run.kind == "run" else _keys(run)[-1:]:
            owners.setdefault(key, run)
    entries = {run.name: run for run in runs}
    measurements: dict[str, list[Run]] = {}
    for run in diagnoses:
        owner = next((owners[key] for key in _keys(run) if key in owners), run)
        if owner is run:
            continue
        known = measurements.setdefault(owner.name, [owner])
        same = next((other for other in known if _same_measurement(other, run)), None)
        if same is not None:
            entries[same.name] = _merged(entries[same.name], entries.pop(run.name))
        else:
            known.append(run)
            entries[run.name] = _named_after(owner, run)
    return list(entries.values())


def _keys(run: Run) -> list[str]:
    """What identifies the model of an entry, best first.

    A run is identified by its configuration, wherever it is; among runs of one configuration, its directory decides.
    Diagnoses of earlier versions hold only the path of the weights. Two diagnoses show the same model if their last
    keys agree: the identity of the run, or the name of the model and the path of its weights.
    """
    if run.kind == "run":
        folder = run.path.resolve()
        return [f"{folder} {run.run_id}", run.run_id, str(folder)] if run.run_id else [str(folder)]
    weights = str(run.summary.get("weights") or "")
    if not weights or weights == UNKNOWN:
        return []
    folder = Path(weights).resolve().parent.parent
    return [f"{folder} {run.run_id}", run.run_id] if run.run_id else [str(folder), f"{run.variant}: {weights}"]


def _same_measurement(owner: Run, run: Run) -> bool:
    """Whether a diagnosis adds to an entry instead of measuring its model in another way."""
    if owner.kind == "run":
        own_images = run.summary.get("images") == OWN_IMAGES
        return own_images and run.step == owner.step and not run.summary.get(REGISTERS)
    return run.step == owner.step and all(run.summary.get(key) == owner.summary.get(key) for key in MEASURED_BY)


def _named_after(owner: Run, run: Run) -> Run:
    """A diagnosis of the model of another entry, named after both."""
    images = run.summary.get("images")
    step = "" if run.step is None else f" at step {run.step}"
    where = "" if images == OWN_IMAGES else f" on {images}"
    name = printable(f"{run.name} ({owner.name}{step}{where}{treatment_phrase(run.summary.get(REGISTERS))})")
    return replace(run, name=name, variant=owner.variant, diagnosis_of=owner.name)


def _merged(entry: Run, diagnosis: Run) -> Run:
    """An entry with everything that only its diagnosis measured."""
    from_diagnosis = entry.mass is None
    return replace(
        entry,
        heads=diagnosis.heads if entry.heads is None else entry.heads,
        blocks=diagnosis.blocks if entry.blocks is None else entry.blocks,
        sensitivity=diagnosis.sensitivity if entry.sensitivity is None else entry.sensitivity,
        edits=diagnosis.edits if entry.edits is None else entry.edits,
        edits_rule=diagnosis.edits_rule if entry.edits is None else entry.edits_rule,
        columns=diagnosis.columns if entry.columns is None else entry.columns,
        stored_maps=diagnosis.stored_maps or entry.stored_maps,
        token_maps=diagnosis.token_maps or entry.token_maps,
        norm_histograms=diagnosis.norm_histograms if entry.norm_histograms is None else entry.norm_histograms,
        tokens=diagnosis.tokens or entry.tokens,
        mass=diagnosis.mass if from_diagnosis else entry.mass,
        dominant=diagnosis.dominant if entry.dominant is None else entry.dominant,
        image_names=diagnosis.image_names if from_diagnosis else entry.image_names,
    )

"""The task `sinks`: sink events, attention and outlier tokens, as `diagnose` measures them, next to quality.

The effect of a treatment such as registers on sinks is then in the same table as its effect on features.
"""

import numpy as np

from sinkablate.diagnostics.counting import counted
from sinkablate.diagnostics.labels import is_event, label_all
from sinkablate.diagnostics.measurement import Measurement
from sinkablate.diagnostics.probe import record
from sinkablate.diagnostics.rules import ADAPTIVE_RULE, VERDICTS
from sinkablate.diagnostics.tables import mean_of
from sinkablate.diagnostics.token_maps import missing_maps
from sinkablate.evaluate.extraction import batches_of
from sinkablate.evaluate.images import PreparedImages, evenly, images_at
from sinkablate.evaluate.rows import Row
from sinkablate.evaluate.subject import Subject

TYPES = ("cls", "register", "patch")


def measured_images(subject: Subject) -> PreparedImages:
    """Return the images that are measured."""
    config = subject.config.sinks
    images = subject.classes.val.images if config.images is None else images_at(config.images, subject.loaded)
    return images.subset(evenly(len(images), config.limit))


def sinks(subject: Subject) -> list[Row]:
    """Measure the model on images, and count events and outliers in the blocks that count.

    The protocols are the model's own rule and, if it is not the same, `adaptive`. Numbers that do not depend on a rule
    are reported once, under the first protocol.
    """
    loaded, model = subject.loaded, subject.backbone.model
    batches = (batch.to(subject.device) for _, batch in batches_of(measured_images(subject), subject.batch_size))
    records, error = record(model, batches, loaded.thresholds)
    measured = Measurement.of(model, records, loaded.thresholds, rebuild_error=error)
    where, labels = counted(measured.block_numbers), label_all(records, loaded.thresholds)
    numbers = {f"mass_{kind}": mean_of(records.mass[kind][:, where]) for kind in TYPES}
    if not missing_maps(records):
        numbers |= _outliers(measured)
    rows = [Row(task="sinks", protocol=loaded.rule, metric=name, value=value) for name, value in numbers.items()]
    for rule in dict.fromkeys((loaded.rule, ADAPTIVE_RULE)):
        verdicts = labels[rule][:, where]
        counts = {"events": is_event(verdicts)} | {label.name.lower(): verdicts == label for label in VERDICTS}
        rows += [
            Row(task="sinks", protocol=rule, metric=name, value=float(marks.sum(axis=(1, 2)).mean()))
            for name, marks in counts.items()
        ]
    return rows


def _outliers(measured: Measurement) -> dict[str, float]:
    """Return the share of patches that are outliers after the block with the most, and the norms after it."""
    table = measured.token_maps.table
    outputs = table.filter(table["stage"] == "output")
    most = outputs.row(int(np.argmax(outputs["outliers"].to_numpy())), named=True)
    last = outputs.row(-1, named=True)
    return {"outliers": most["outliers"]} | {f"norm_{kind}": last[f"norm_{kind}"] for kind in TYPES}

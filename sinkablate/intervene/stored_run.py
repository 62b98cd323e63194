"""An experiment whose finished images are stored, by one process or by shards; the last one writes the results."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from sinkablate.config import ThresholdConfig
from sinkablate.data.errors import DataError
from sinkablate.diagnose.measure import Source, progress
from sinkablate.diagnose.model import LoadedModel
from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.diagnostics.rules import Rule
from sinkablate.errors import UserError
from sinkablate.figures import interventions
from sinkablate.figures import sinks as figures
from sinkablate.files.writing import write_atomically, write_json
from sinkablate.intervene.controls import Outcome, donor_direction, permuted_values
from sinkablate.intervene.edits import all_edits, judged_by
from sinkablate.intervene.experiment import Experiment
from sinkablate.intervene.findings import headline
from sinkablate.intervene.random_network import events_per_image, random_network
from sinkablate.intervene.selection import nearest_heads
from sinkablate.intervene.store import Rows
from sinkablate.intervene.tables import later_heads, row_table
from sinkablate.intervene.values import Values, collect
from sinkablate.process.threads import considerate_threads
from sinkablate.run.provenance import provenance
from sinkablate.run.resumable import RESUMES
from sinkablate.run.schema import final_tokens


@dataclass(frozen=True)
class StoredRun:
    """An experiment, where its images come from, and where its results go."""

    experiment: Experiment
    loaded: LoadedModel
    source: Source
    store: Rows
    device: torch.device
    thresholds: ThresholdConfig
    rule: Rule

    @considerate_threads()
    def run(self, shard: tuple[int, int], batch_size: int, control_images: int) -> None:
        """Edit the images of a shard that are not stored yet; write the results if no image is left in any shard.

        Args:
            shard: k and n: the images k, k + n, k + 2n, ...
            batch_size: Number of images that are stored together.
            control_images: Number of images of the controls.

        Raises:
            UserError: A check in float64 fails, or the disk is full.
        """
        self.loaded.model.to(self.device)
        edited = self.experiment.edited_images
        with measurement_mode(self.loaded.model):
            if edited:
                with self.store.alone():
                    if self.store.finished:  # by another shard, in the meantime
                        return
                    values = self._values()
                self._edit([image for image in edited if image % shard[1] == shard[0]], values, batch_size)
            with self.store.alone():
                if not self.store.finished and set(edited) <= self.store.done():
                    self._summarize(control_images)

    def _values(self) -> Values:
        """Values of all images; the first shard computes and stores them."""
        path = self.store.out / "values.npz"
        if not path.exists():
            plan = self.experiment.plan
            images = (image for _, image in self._load(list(range(len(plan.names)))))
            collect(self.loaded.model, plan, images).save(path)
        return Values.load(path)

    def _edit(self, images: list[int], values: Values, batch_size: int) -> None:
        done = self.store.done()
        left = [image for image in images if image not in done]
        batch: list[int] = []
        rows: list[dict[str, Any]] = []
        with progress(len(images) - len(left), len(images), "editing", self.loaded.unit) as advance:
            for index, of_image in zip(left, self.experiment.rows(values, self._load(left)), strict=True):
                rows += of_image
                batch.append(index)
                advance(1)
                if len(batch) == batch_size or index == left[-1]:
                    self.store.add(batch, rows)
                    batch, rows = [], []

    def _load(self, images: list[int]) -> Iterator[tuple[int, Tensor]]:
        """Yield images (1, C, H, W) of the plan on the device, in ascending order; the others are skipped unread."""
        numbers = self.experiment.plan.numbers
        pending = {numbers[image]: image for image in images}
        for number, picture in enumerate(self.source.start(0)):
            if number in pending:
                try:
                    yield pending.pop(number), picture.load()[None].to(self.device)
                except DataError as error:
                    raise UserError(f"{error}: it could be read when the model was diagnosed") from None
            if not pending:
                return
        if pending:
            raise UserError(f"images: {len(pending)} of the diagnosed images no longer exist")

    def _summarize(self, control_images: int) -> None:
        """Write everything that follows from the finished images, `summary.json` last."""
        out, experiment = self.store.out, self.experiment
        plan = experiment.plan
        rows = row_table(self.store.read())
        tables = {"rows": rows, **experiment.tables(rows)}
        for name, table in tables.items():
            write_atomically(out / f"{name}.parquet", table.write_parquet, RESUMES)
        controls = self._controls(control_images)
        controls.append(donor_direction(later_heads(tables["heads"], experiment.depth)))
        self._draw(tables["heads"], tables["classes"])
        write_json(
            out / "summary.json",
            {
                **self.store.identity,
                "headline": headline(len(plan.heads), tables["validation"], controls, experiment.selection),
                "rule_text": str(self.rule),
                "image_count": len(plan.names),
                "rows": len(rows),
                "events_per_image": events_per_image(plan.labels),
                "edited_heads": [f"{block}:{head}" for block, head in plan.heads],
                "nearest_heads": [] if plan.heads else nearest_heads(plan.quantities, self.rule, plan.labels),
                "controls": [control.fields() for control in controls],
                "threads": torch.get_num_threads(),
                **provenance(),
            },
        )
        self.store.close()

    def _draw(self, heads: pl.DataFrame, classes: pl.DataFrame) -> None:
        folder = self.store.out / "figures"
        folder.mkdir(exist_ok=True)
        labels = {edit.name: edit.label for edit in all_edits()}
        edit = judged_by(heads.filter(pl.col("effect").is_not_nan())["edit"].to_list())
        limits = (self.thresholds.nop_max, self.thresholds.broadcast_min)
        tokens = final_tokens(self.store.identity)
        figures.save(interventions.edits_by_label(heads, classes, labels, tokens), folder / "edits_by_label")
        figures.save(interventions.effect_by_ratio(heads, labels, edit, *limits, tokens), folder / "effect_by_ratio")

    def _controls(self, count: int) -> list[Outcome]:
        """Run the controls: permuted values, and a random network of the same architecture."""
        plan = self.experiment.plan
        if not plan.events.any():
            return [
                Outcome(name, None, "the model has no events", {"images": 0})
                for name in ("permuted values", "random network")
            ]
        busiest = np.argsort(-plan.events.sum(axis=(1, 2)), kind="stable")[:count]
        images = [image for _, image in self._load(sorted(busiest.tolist()))]
        print(f"controls on {len(images)} {self.loaded.unit}s", file=sys.stderr, flush=True)
        untrained = self.loaded.untrained(plan.seed + 1).to(self.device)
        rate = events_per_image(plan.labels)
        return [
            permuted_values(self.loaded.model, images, self.rule, self.thresholds, plan.seed),
            random_network(untrained, images, self.rule, self.thresholds, rate, plan.seed),
        ]

"""One intervention: the images of a shard, then, once all shards are through, tables, controls and figures."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sinkablate.config import SelectionConfig, ThresholdConfig
from sinkablate.data.errors import DataError
from sinkablate.diagnose.images import InMemoryImages
from sinkablate.diagnose.measure import Source, progress
from sinkablate.diagnose.model import LoadedModel
from sinkablate.diagnose.store import write_atomically
from sinkablate.diagnostics.rules import Rule
from sinkablate.errors import UserError
from sinkablate.figures import interventions
from sinkablate.figures import sinks as figures
from sinkablate.files.writing import write_json
from sinkablate.intervene.controls import Outcome, donor_direction, permuted_values
from sinkablate.intervene.editor import Editor
from sinkablate.intervene.edits import all_edits, judged_by, selected
from sinkablate.intervene.exactness import check_exactness
from sinkablate.intervene.findings import headline
from sinkablate.intervene.judging import judge_of, targets_of
from sinkablate.intervene.random_network import events_per_image, random_network
from sinkablate.intervene.selection import Plan, head_class, nearest_heads
from sinkablate.intervene.store import Rows
from sinkablate.intervene.tables import class_table, head_table, later_heads, row_table, validation_table
from sinkablate.intervene.values import Values, collect, pathway_blocks
from sinkablate.process.threads import considerate_threads
from sinkablate.run.provenance import provenance


@dataclass(frozen=True)
class Experiment:
    """Everything that decides the results, and where they go."""

    loaded: LoadedModel
    source: Source
    rows: Rows
    plan: Plan
    edits: list[str]
    """Names of edits, and of groups of edits."""
    device: torch.device
    thresholds: ThresholdConfig
    rule: Rule
    selection: SelectionConfig

    @property
    def depth(self) -> int:
        """Blocks of the model."""
        return self.plan.labels.shape[1]

    @considerate_threads()
    def run(self, shard: tuple[int, int], together: int, control_images: int) -> None:
        """Edit the shard's images that are not done, and summarize once every image is.

        Args:
            shard: k and n: the images k, k + n, ...
            together: Images stored together.
            control_images: Images of the controls.

        Raises:
            UserError: A check in float64 fails, or the disk is full.
        """
        self.loaded.model.to(self.device)
        todo = self._edited()
        if todo:
            with self.rows.alone():
                if self.rows.finished:  # by another shard, meanwhile
                    return
                values = self._values()
            self._edit([image for image in todo if image % shard[1] == shard[0]], values, together)
        with self.rows.alone():
            if not self.rows.finished and set(todo) <= self.rows.done():
                self._summarize(control_images)

    def _edited(self) -> list[int]:
        """Images on which there is something to edit."""
        pathways = any(edit.of_pathway for edit in selected(self.edits)) and pathway_blocks(self.loaded.model)
        return [image for image in range(len(self.plan.names)) if pathways or self.plan.edited(image)]

    def _values(self) -> Values:
        path = self.rows.out / "values.npz"
        if not path.exists():
            images = (tensor for _, tensor in self._load(list(range(len(self.plan.names)))))
            collect(self.loaded.model, self.plan, images).save(path)
        return Values.load(path)

    def _edit(self, images: list[int], values: Values, together: int) -> None:
        targets = targets_of(
            self.source.targets if isinstance(self.source, InMemoryImages) else None, self.plan.numbers
        )
        editor = Editor(self.loaded.model, self.plan, values, selected(self.edits), judge_of(self.loaded, targets))
        done = self.rows.done()
        left = [image for image in images if image not in done]
        finished: list[int] = []
        rows: list[dict[str, Any]] = []
        with progress(len(images) - len(left), len(images), "editing") as advance:
            for image, tensor in self._load(left):
                if image == left[0]:
                    check_exactness(editor, image, tensor)
                rows += [{"place": image, **row} for row in editor.rows(image, tensor)]
                finished.append(image)
                advance(1)
                if len(finished) == together or image == left[-1]:
                    self.rows.add(finished, rows)
                    finished, rows = [], []

    def _load(self, images: list[int]) -> Iterator[tuple[int, Tensor]]:
        """Yield images of the plan (1, C, H, W) on the device, in rising order; others are passed over unread."""
        wanted = {self.plan.numbers[image]: image for image in images}
        for number, picture in enumerate(self.source.start(0)):
            if number in wanted:
                try:
                    yield wanted.pop(number), picture.load()[None].to(self.device)
                except DataError as error:
                    raise UserError(f"{error}: it was read when the model was diagnosed") from None
            if not wanted:
                return
        raise UserError(f"images: {len(wanted)} of those diagnosed are gone")

    def _summarize(self, control_images: int) -> None:
        """Write everything that is derived from the finished images; `summary.json` last."""
        out, plan = self.rows.out, self.plan
        rows = row_table(self.rows.read())
        classes = {(block, head): head_class(plan.labels[:, block, head]) for block, head in plan.heads}
        heads = head_table(rows, classes, self.selection, everywhere=plan.everywhere)
        tables = {
            "rows": rows,
            "heads": heads,
            "classes": class_table(heads, self.depth),
            "validation": validation_table(heads, self.depth),
        }
        for name, table in tables.items():
            write_atomically(out / f"{name}.parquet", table.write_parquet)
        controls = self._controls(control_images)
        controls.append(donor_direction(later_heads(heads, self.depth)))
        (out / "figures").mkdir(exist_ok=True)
        labels = {edit.name: edit.label for edit in all_edits()}
        figures.save(interventions.edits_by_label(heads, tables["classes"], labels), out / "figures" / "edits_by_label")
        figures.save(
            interventions.effect_by_ratio(
                heads,
                labels,
                judged_by(heads["edit"].to_list()),
                self.thresholds.nop_max,
                self.thresholds.broadcast_min,
            ),
            out / "figures" / "effect_by_ratio",
        )
        write_json(
            out / "summary.json",
            {
                **self.rows.identity,
                "headline": headline(len(plan.heads), tables["validation"], controls, self.selection),
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
        self.rows.close()

    def _controls(self, count: int) -> list[Outcome]:
        """Permuted values, and a random network of the same architecture."""
        plan, seed = self.plan, self.plan.seed
        if not plan.events.any():
            none = {"images": 0}
            return [
                Outcome(name, None, "the model has no event", none) for name in ("permuted values", "random network")
            ]
        busiest = np.argsort(-plan.events.sum(axis=(1, 2)), kind="stable")[:count]
        images = [tensor for _, tensor in self._load(sorted(busiest.tolist()))]
        print(f"controls on {len(images)} images", file=sys.stderr, flush=True)
        untrained = self.loaded.untrained(seed + 1).to(self.device)
        return [
            permuted_values(self.loaded.model, images, self.rule, self.thresholds, seed),
            random_network(untrained, images, self.rule, self.thresholds, events_per_image(plan.labels), seed),
        ]

"""One diagnosis: from the images to the files it writes."""

from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import torch

from sinkablate.config import ThresholdConfig
from sinkablate.data.image_files import format_counts
from sinkablate.diagnose.maps import attention_maps, picture_of
from sinkablate.diagnose.measure import Source, measure_images
from sinkablate.diagnose.model import LoadedModel
from sinkablate.diagnose.store import Store, per_image
from sinkablate.diagnose.token_maps import write_token_maps
from sinkablate.diagnostics.counting import counted_name
from sinkablate.diagnostics.measurement import Measurement
from sinkablate.diagnostics.rules import ADAPTIVE_RULE, rule_named
from sinkablate.diagnostics.token_maps import missing_maps
from sinkablate.errors import UserError
from sinkablate.figures.atlas import atlas, atlas_points, has_atlas, least_events
from sinkablate.figures.blocks import handoff, location_entropy, token_norms, with_types
from sinkablate.figures.frequency import frequency
from sinkablate.figures.maps import busiest
from sinkablate.figures.sensitivity import sensitivity
from sinkablate.figures.sinks import Drawn, save
from sinkablate.figures.stripes import save_maps, stripes
from sinkablate.files.writing import as_stored, write_atomically, write_json
from sinkablate.process.memory import peak_memory_gib
from sinkablate.process.threads import considerate_threads
from sinkablate.run.directory import lock_directory, unlock_directory
from sinkablate.run.provenance import provenance
from sinkablate.run.resumable import RESUMES


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """A model, images, and everything else that determines the results."""

    loaded: LoadedModel
    source: Source
    where: str
    """Name of the images."""
    thresholds: ThresholdConfig
    blocks: list[int]
    limit: int | None = None
    min_side: int = 32
    min_events: int | None = None

    rule: str | None = None
    """The rule that is shown first; None means that of the model."""

    @property
    def shown_rule(self) -> str:
        """The rule of the headline and figures; unless another is chosen, `adaptive` for toys, otherwise `causal`."""
        return self.rule or self.loaded.rule

    def identity(self) -> dict[str, Any]:
        """Everything that determines the results, as plain values."""
        return as_stored(
            {
                **self.loaded.identity,
                f"{self.loaded.unit}s": self.where,
                "limit": self.limit,
                "min_side": self.min_side,
                "blocks": self.blocks,
                "min_events": self.min_events,
                "thresholds": asdict(self.thresholds),
            }
            | ({} if self.rule is None else {"rule": self.rule})
        )

    @considerate_threads()
    def finish(
        self, store: Store, device: torch.device, *, batch_size: int, strict: bool, memory_mib: int | None = None
    ) -> None:
        """Measure the images that the store does not hold yet, then write tables, figures and the summary.

        A finished diagnosis is left as it is.

        Args:
            store: The finished batches of this diagnosis.
            device: Where the model runs.
            batch_size: Images per forward pass.
            strict: Stop at an image that cannot be read, instead of skipping it.
            memory_mib: As for `Recorder`.

        Raises:
            UserError: Another process writes to the directory, or the model or the images cannot be measured.
        """
        if store.finished:
            return
        lock = lock_directory(store.out, "out")
        try:
            measure_images(
                self.loaded.model.to(device),
                self.source,
                store,
                self.thresholds,
                blocks=self.blocks,
                batch_size=batch_size,
                memory_mib=memory_mib,
                limit=self.limit,
                strict=strict,
                unit=self.loaded.unit,
            )
            self._summarize(store, device)
        finally:
            unlock_directory(lock)
            with suppress(OSError):  # an error before the first batch leaves no empty directory
                store.out.rmdir()

    def _summarize(self, store: Store, device: torch.device) -> None:
        """Write everything that is derived from the finished batches, `summary.json` last."""
        records, names, numbers, faults, reasons, seconds, rebuild_error = store.read()
        skipped = Counter(reasons) + self.source.skipped
        if records is None:
            store.discard()  # so that the same command starts again once the images are repaired
            raise UserError(
                f"images={self.where}: no image could be read ({format_counts(skipped) or 'none exists'}; "
                f"min_side={self.min_side})"
            )
        out, thresholds = store.out, self.thresholds
        measured = replace(
            Measurement.of(self.loaded.model, records, thresholds, self.blocks, rebuild_error),
            first_rule=self.shown_rule,
            token_names=self.loaded.token_names,
        )
        heads, blocks_, grid = measured.heads, measured.blocks, measured.sensitivity
        per_image(out / "per_image.npz", records, names, numbers)
        tables = {"heads": heads, "blocks": blocks_, "sensitivity": grid, "norm_histograms": measured.norm_histograms}
        for name, table in tables.items():
            write_atomically(out / f"{name}.parquet", table.write_parquet, RESUMES)
        least = self.min_events or least_events(len(names))
        (out / "figures").mkdir(exist_ok=True)
        typed = with_types(blocks_, records.layout.counts, records.heads["sink_type"])
        maps = self._token_maps(out, measured, names, numbers)
        for name, drawn in {
            **self._figures(heads, typed, least),
            "sensitivity": sensitivity(grid, counted_name(self.blocks)),
            "stripes": self._stripes(out, heads, names[0], numbers[0], device),
        }.items():
            save(drawn, out / "figures" / name)
        write_json(
            out / "summary.json",
            self.identity()
            | measured.summary
            | {
                "rule": self.shown_rule,
                **self._about_model(),
                "device": str(device),
                "skipped": faults,
                "skipped_by_reason": dict(skipped),
                "min_events": least,
                "token_maps": maps,
                "seconds": seconds,
                "images_per_second": len(names) / seconds,
                "peak_memory_gib": peak_memory_gib(),
                "threads": torch.get_num_threads(),
                **provenance(),
            },
        )
        store.close()

    def _about_model(self) -> dict[str, Any]:
        """Return what is stored about the model in addition to its identity."""
        neurons = self.loaded.register_neurons
        return {
            "run_id": self.loaded.run_id or None,
            **({"drift": dict(self.loaded.drift)} if self.loaded.drift else {}),
            "register_neurons": neurons and asdict(neurons),
        }

    def _figures(self, heads: pl.DataFrame, blocks_: pl.DataFrame, least: int) -> dict[str, Drawn]:
        """Draw the tables of heads and blocks."""
        name, rule = self.loaded.title, self.shown_rule
        if not has_atlas(heads, rule):
            rule = self.loaded.rule
        types = {name: self.loaded.token_names}
        limits = rule_named(rule, self.thresholds, gated=True).limits
        points = {name: [atlas_points(heads, rule, limits, least)]}
        return {
            "handoff": handoff({name: [blocks_]}, rule, types),
            "frequency": frequency({name: [heads]}, rule),
            "entropy": location_entropy({name: [heads]}),
            "atlas": atlas(points, rule, {name: limits}),
            "token_norms": token_norms({name: [blocks_]}, types),
        }

    def _token_maps(self, out: Path, measured: Measurement, names: list[str], numbers: list[int]) -> dict[str, Any]:
        """Write the token maps, if there are any, and return their summary or the reason why there are none."""
        if reason := missing_maps(measured.records):
            for path in (*out.glob("token_map*.*"), *out.glob("figures/token_maps.*")):
                path.unlink()  # written by a diagnosis that this one overwrites
            return {"skipped": reason}
        return write_token_maps(out, measured.token_maps, self.loaded, self.source, names, numbers)

    def _stripes(self, out: Path, heads: pl.DataFrame, name: str, number: int, device: torch.device) -> Drawn:
        """Draw and store attention maps of the heads that sink most often, on the first image."""
        image = next(iter(self.source.start(number))).load()[None].to(device)
        maps = attention_maps(self.loaded.model, image, busiest(heads, ADAPTIVE_RULE))
        picture = picture_of(self.loaded, image[0])
        maps = [shown._replace(picture=picture) for shown in maps]
        save_maps(out / "figures" / "stripes.npz", maps)
        return stripes(maps, name, self.loaded.token_names)

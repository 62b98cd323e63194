"""One measurement of a model: its records, and the tables and findings that are derived from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import polars as pl
from numpy import float32, float64
from numpy.typing import NDArray
from torch import nn

from sinkablate.config import ThresholdConfig
from sinkablate.config.types import checked
from sinkablate.diagnostics.counting import counted
from sinkablate.diagnostics.findings import findings
from sinkablate.diagnostics.geometry import spectral_spikes
from sinkablate.diagnostics.histograms import histogram_table
from sinkablate.diagnostics.labels import Labels, label_all
from sinkablate.diagnostics.records import Records
from sinkablate.diagnostics.rules import DEFAULT_RULE, of_rule
from sinkablate.diagnostics.sensitivity import sensitivity
from sinkablate.diagnostics.summary import scalars
from sinkablate.diagnostics.tables import block_table, head_table
from sinkablate.diagnostics.token_maps import TokenMaps, missing_maps, token_maps
from sinkablate.errors import UserError
from sinkablate.vit.anatomy import blocks_of


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What the attention sinks of one model do on one set of images.

    Tables and findings are computed when they are first read, and then kept.

    Example::

        m = sa.measure(model, images)
        m.heads.sort("causal_frequency", descending=True)  # one row per block and head
        m.labels("adaptive")                               # (images, blocks, heads)
    """

    records: Records = field(repr=False)
    """Every quantity per image, block and head."""
    thresholds: ThresholdConfig = field(repr=False)
    """The thresholds of the quantities and rules."""
    block_numbers: list[int]
    """Indices of the measured blocks, in ascending order."""
    query_key_sigma1: NDArray[float64] = field(repr=False)
    """Largest singular value of each head's query-key map, (L, H)."""
    spectral_spike: NDArray[float64] = field(repr=False)
    """The ratio of that singular value to the mean one, (L, H)."""
    rebuild_error: float = 0.0
    """Largest relative error with which a block was rebuilt from the captured tensors."""
    first_rule: str | None = None
    """The rule that the headline of the summary prefers; None means the first of the rules."""
    token_names: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Token type -> the model's own name for it, where that differs."""

    @classmethod
    def of(
        cls,
        model: nn.Module,
        records: Records,
        thresholds: ThresholdConfig,
        blocks: Sequence[int] | None = None,
        rebuild_error: float = 0.0,
    ) -> "Measurement":
        """Combine records with the query-key geometry of the model they were recorded from.

        Args:
            model: The measured model.
            records: What was measured on the images.
            thresholds: The thresholds that were used.
            blocks: Indices of the measured blocks; None means all of them.
            rebuild_error: Largest relative error of a rebuilt block.
        """
        numbers = list(range(len(blocks_of(model)))) if blocks is None else list(blocks)
        largest, spike = spectral_spikes(model, numbers)
        return cls(
            records=records,
            thresholds=thresholds,
            block_numbers=numbers,
            query_key_sigma1=largest.numpy(),
            spectral_spike=spike.numpy(),
            rebuild_error=rebuild_error,
        )

    @property
    def per_image(self) -> dict[str, NDArray[float32]]:
        """Every quantity of the heads, (images, blocks, heads) each."""
        return self.records.heads

    @cached_property
    def heads(self) -> pl.DataFrame:
        """One row per block and head: the columns of `head_table` and the query-key geometry of the head's weights."""
        sigma, spike = (array.reshape(-1) for array in (self.query_key_sigma1, self.spectral_spike))
        table = head_table(self.records, self.thresholds, self.block_numbers)
        return table.with_columns(
            pl.Series("query_key_sigma1", sigma), pl.Series("spectral_spike", spike)
        ).with_columns((pl.col("query_key_sigma1") * pl.col("median_sink_token_norm")).alias("sigma1_sink_norm"))

    @cached_property
    def blocks(self) -> pl.DataFrame:
        """One row per block: the columns of `block_table` and the spectral spikes of the block's heads."""
        spike = pl.col("spectral_spike")
        spikes = self.heads.group_by("block").agg(
            spike.max().alias("spectral_spike_max"), spike.mean().alias("spectral_spike_mean")
        )
        table = block_table(self.records, self.thresholds, self.block_numbers)
        return table.join(spikes, on="block", how="left").sort("block")

    @cached_property
    def norm_histograms(self) -> pl.DataFrame:
        """One row per block, token type and bin: how many tokens have a norm in it; see `histogram_table`."""
        return histogram_table(self.records, self.block_numbers)

    @cached_property
    def token_maps(self) -> TokenMaps:
        """The norm of every patch over the image, and which patches are outliers; see `token_maps`.

        Raises:
            UserError: The input does not consist of images whose patches fill a grid.
        """
        if reason := missing_maps(self.records):
            raise UserError(f"images: there are no token maps, because {reason}")
        return token_maps(self.records, self.thresholds, self.block_numbers)

    @checked
    def labels(self, rule: str = DEFAULT_RULE) -> Labels:
        """Return the label that a rule gives to every image and head.

        Args:
            rule: Name of the rule, such as `causal`, `lejepa`, `def1_0.3`, `adaptive` or `effective_causal`.

        Returns:
            Values of `Label`, int8, (images, blocks, heads).

        Raises:
            UserError: No rule has this name; `effective_*` rules exist only for a model with an output gate.
        """
        return of_rule(rule, self._labels)

    @cached_property
    def _labels(self) -> dict[str, Labels]:
        return label_all(self.records, self.thresholds)

    @cached_property
    def _sensitivity(self) -> tuple[pl.DataFrame, dict[str, dict[str, float | None]]]:
        """The blocks that count; block 0 is left out unless it is the only one."""
        where = counted(self.block_numbers)
        return sensitivity({name: values[:, where] for name, values in self.records.heads.items()}, self.thresholds)

    @property
    def sensitivity(self) -> pl.DataFrame:
        """How the counts of events and labels change when the thresholds move, in the blocks that count."""
        return self._sensitivity[0]

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Counts per image by rule and label, token types, the handoff, and how stable the labels are."""
        layout = self.records.layout
        return findings(self.records, self.thresholds, self.block_numbers, self.first_rule, self.token_names) | {
            "image_count": len(self.records.order),
            "label_survival": self._sensitivity[1],
            "spectral_spike_max": self.heads["spectral_spike"].max(),
            "rebuild_error": self.rebuild_error,
            "num_prefix_tokens": layout.num_prefix,
            "num_tokens": layout.num_tokens,
        }

    @property
    def scalars(self) -> dict[str, float]:
        """The aggregates that `fit` logs while a model trains, under sink/, norm/ and gate/."""
        return scalars(self.records, self.thresholds)

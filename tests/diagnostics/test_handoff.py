"""The columns from which the handoff is read: dominant columns, chance, and attention and events per token."""

from math import log

import numpy as np
import pytest
from measured import BLOCKS, HEADS, IMAGES, T, records, sinks, verdicts
from variants import make, noise, perturbed

from sinkablate.config import AttentionConfig
from sinkablate.diagnostics.probe import probe
from sinkablate.diagnostics.tables import block_table, head_table
from sinkablate.vit.tokens import TokenType


def test_dominant_columns_are_counted_over_images_and_heads() -> None:
    measured = records()
    table = block_table(measured, T)
    for block in range(BLOCKS):
        kinds = measured.heads["sink_type"][:, block]
        shares = [table[f"dominant_{kind.label}"][block] for kind in TokenType]
        assert shares == pytest.approx([(kinds == kind).sum() / (IMAGES * HEADS) for kind in TokenType])
        assert sum(shares) == pytest.approx(1)


def test_chance_is_the_share_of_the_columns() -> None:
    row = block_table(records(), T).row(0, named=True)
    layout = records().layout
    assert row["chance_cls"] == pytest.approx(1 / layout.num_tokens)
    assert row["chance_register"] == pytest.approx(2 / layout.num_tokens)
    assert row["chance_patch"] == pytest.approx(layout.num_patches / layout.num_tokens)
    assert row["chance_null"] == row["chance_kv_bias"] == 0


def test_a_column_of_a_single_block_counts_in_that_block_only() -> None:
    model = perturbed(make(depth=2, layers=(0,), attention=AttentionConfig(sink="zero")))
    measured = probe(model, noise(4, 1, 28, 28), np.arange(4), T)[0]
    table, tokens = block_table(measured, T), measured.layout.num_tokens
    for name in ("chance", "columns"):
        assert table[f"{name}_null"].to_list() == pytest.approx([1 / (tokens + 1), 0])
        assert table[f"{name}_cls"].to_list() == pytest.approx([1 / (tokens + 1), 1 / tokens])
    assert table["events_causal_per_token_null"].is_nan().to_list() == [False, True]
    measured.heads["sink_idx"][:] = np.arange(4)[:, None, None]  # a different column on each of the four images
    entropy = head_table(measured, T).group_by("block", maintain_order=True).first()["location_entropy"]
    assert entropy.to_list() == pytest.approx([log(4) / log(tokens + 1), log(4) / log(tokens)])


@pytest.mark.parametrize("rule", ["causal", "adaptive"])
def test_mass_and_events_per_token(rule: str) -> None:
    measured, names = records(), verdicts(records(), rule)
    table = block_table(measured, T)
    counts = {TokenType.CLS: 1, TokenType.REGISTER: 2, TokenType.PATCH: measured.layout.num_patches}
    for kind, count in counts.items():
        on_kind = sinks(names) & (measured.heads["sink_type"] == kind)
        expected = on_kind.sum(axis=(0, 2)) / IMAGES / count
        assert table[f"events_{rule}_per_token_{kind.label}"].to_list() == pytest.approx(expected.tolist())
        mass = measured.mass[kind.label].mean(axis=0) / count
        assert table[f"mass_per_token_{kind.label}"].to_list() == pytest.approx(mass.tolist(), rel=1e-5)
    assert table[f"events_{rule}_per_token_null"].is_nan().all()

"""The tables of heads and blocks, recomputed from the per-image records."""

import warnings
from dataclasses import replace
from itertools import product
from math import log, log2

import numpy as np
import polars as pl
import pytest
from measured import BLOCKS, HEADS, IMAGES, T, records, sinks, verdicts

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.labels import is_event, label_all
from sinkablate.diagnostics.records import Records
from sinkablate.diagnostics.tables import (
    EVENT_MEDIANS,
    INDICES,
    _median_over_images,
    block_table,
    constancy,
    head_table,
)
from sinkablate.vit.tokens import TokenType

PLACES = [(block, head) for block in range(BLOCKS) for head in range(HEADS)]


def of_heads(table: pl.DataFrame, name: str) -> np.ndarray:
    """A column of the table of heads, reshaped to (L, H)."""
    return table[name].to_numpy().reshape(BLOCKS, HEADS)


@pytest.mark.parametrize("rule", ["causal", "adaptive"])
def test_label_counts_and_frequency(rule: str) -> None:
    measured = records()
    table, names = head_table(measured, T), verdicts(measured, rule)
    assert table.select("block", "head").rows() == PLACES
    assert table["images"].to_list() == [IMAGES] * len(PLACES)
    for label in ("nop", "broadcast", "other", "undefined"):
        expected = (names == label).sum(axis=0)
        assert expected.sum() > 0
        np.testing.assert_array_equal(of_heads(table, f"{rule}_{label}"), expected)
    np.testing.assert_allclose(of_heads(table, f"{rule}_frequency"), sinks(names).mean(axis=0))


def test_qualified_broadcasts_have_a_large_relative_update() -> None:
    measured = records()
    expected = ((verdicts(measured) == "broadcast") & (measured.heads["rel_update"] >= 0.01)).sum(axis=0)
    table = head_table(measured, T)
    np.testing.assert_array_equal(of_heads(table, "causal_broadcast_qualified"), expected)
    assert 0 < expected.sum() < table["causal_broadcast"].sum()
    none = head_table(measured, ThresholdConfig(rel_update_min=1.0))
    assert none["causal_broadcast_qualified"].sum() == 0


def test_effective_labels_are_added_where_there_is_a_gate() -> None:
    gated, plain = head_table(records(gate=True), T), head_table(records(), T)
    names = {f"effective_{rule}_{label}" for rule in ("causal", "adaptive") for label in ("nop", "broadcast")}
    assert names <= set(gated.columns)
    assert not any(name.startswith("effective") for name in plain.columns)
    assert gated["effective_causal_nop"].sum() > gated["causal_nop"].sum()


def test_medians_over_images_and_over_events() -> None:
    measured = records()
    table, event = head_table(measured, T), sinks(verdicts(measured))
    for name, values in measured.heads.items():
        if name not in INDICES and not name.startswith("routed_frac_at_") and not np.isnan(values).any():
            np.testing.assert_allclose(of_heads(table, f"median_{name}"), np.median(values, axis=0), err_msg=name)
    for name in ("ratio_out", "stable_rank", "rel_update"):
        for block, head in PLACES:
            chosen = measured.heads[name][:, block, head][event[:, block, head]]
            expected = np.median(chosen) if len(chosen) else np.nan
            assert of_heads(table, f"event_median_{name}")[block, head] == pytest.approx(expected, nan_ok=True)
    for rule, name in (*product(("causal", "adaptive"), EVENT_MEDIANS), ("adaptive", "routed_stable_rank")):
        values = np.where(is_event(label_all(measured, T)[rule]), measured.heads[name], np.nan)
        medians = [np.median(x) if len(x := values[:, b, h][~np.isnan(values[:, b, h])]) else np.nan for b, h in PLACES]
        np.testing.assert_allclose(table[f"{rule}_event_median_{name}"], medians)
    assert np.isnan(of_heads(table, "event_median_ratio_out")[:, 1]).all()


def test_the_sink_of_a_head_is_its_most_frequent_column() -> None:
    measured = records()
    table, size = head_table(measured, T), measured.layout.num_tokens
    for (block, head), row in zip(PLACES, table.iter_rows(named=True), strict=True):
        positions = measured.heads["sink_idx"][:, block, head].astype(int).tolist()
        kinds = [TokenType(int(kind)).label for kind in measured.heads["sink_type"][:, block, head]]
        assert row["sink_idx"] == min(set(positions), key=lambda x: (-positions.count(x), x))
        assert kinds.count(row["token_type"]) == max(map(kinds.count, kinds))
        shares = [positions.count(x) / IMAGES for x in set(positions)]
        assert row["location_entropy"] == pytest.approx(-sum(p * log(p) for p in shares) / log(size))


@pytest.mark.parametrize(("positions", "expected"), [([3] * 8, 0.0), ([1, 2] * 4, log(2)), (list(range(8)), log(8))])
def test_location_entropy_in_closed_form(positions: list[int], expected: float) -> None:
    measured = first_images(records(), 8)
    heads = measured.heads | {"sink_idx": np.broadcast_to(np.float32(positions)[:, None, None], (8, BLOCKS, HEADS))}
    entropy = of_heads(head_table(replace(measured, heads=heads), T), "location_entropy")
    np.testing.assert_allclose(entropy, expected / log(measured.layout.num_tokens), atol=1e-12)
    assert not np.signbit(entropy).any()


@pytest.mark.parametrize(("events", "bits"), [(0, 0.0), (8, 0.0), (4, 1.0), (2, 2 - 0.75 * log2(3))])
def test_specialisation_is_the_entropy_of_the_frequency(events: int, bits: float) -> None:
    measured = first_images(records(), 8)
    routed = np.zeros((8, BLOCKS, HEADS), np.float32)
    routed[:events] = 1
    heads = measured.heads | {"routed_frac": routed, "ratio_out": np.ones_like(routed)}
    table = head_table(replace(measured, heads=heads), T)
    np.testing.assert_allclose(of_heads(table, "specialisation"), bits, atol=1e-12)
    assert not np.signbit(of_heads(table, "specialisation")).any()


def first_images(measured: Records, count: int) -> Records:
    """The records of the first images."""
    return replace(
        measured,
        order=measured.order[:count],
        norms=measured.norms[:count],
        **{
            group: {name: values[:count] for name, values in getattr(measured, group).items()}
            for group in ("heads", "mass", "candidates", "tokens")
        },
    )


def test_payload_constancy_of_known_payloads() -> None:
    payload = np.random.default_rng(0).normal(size=(IMAGES, BLOCKS, HEADS, 10))
    payload[:, :, 0] = payload[:1, :, 0]
    measured = replace(records(), payload_sum=payload.sum(0), payload_squares=(payload**2).sum((0, -1)))
    expected = (payload.mean(0) ** 2).sum(-1) / (payload**2).sum(-1).mean(0)
    np.testing.assert_allclose(constancy(measured), expected, rtol=1e-6)
    np.testing.assert_allclose(of_heads(head_table(measured, T), "payload_constancy"), expected, rtol=1e-6)
    np.testing.assert_allclose(expected[:, 0], 1)


@pytest.mark.parametrize("rule", ["causal", "adaptive"])
def test_events_of_a_block_by_token_type(rule: str) -> None:
    measured = records()
    table, event = block_table(measured, T), sinks(verdicts(measured, rule))
    kinds = measured.heads["sink_type"]
    for block, row in enumerate(table.iter_rows(named=True)):
        event_kinds = kinds[:, block][event[:, block]]
        assert row[f"events_{rule}"] == pytest.approx(len(event_kinds) / IMAGES)
        shares = {kind: row[f"events_{rule}_{kind.label}"] for kind in TokenType}
        assert shares == pytest.approx({kind: (event_kinds == kind).mean() for kind in TokenType})
        assert sum(shares.values()) == pytest.approx(1)


def test_shares_of_no_event_are_undefined() -> None:
    measured = records()
    quiet = replace(measured, heads=measured.heads | {"routed_frac": np.zeros_like(measured.heads["routed_frac"])})
    table = block_table(quiet, T)
    assert table["events_causal"].to_list() == [0] * BLOCKS
    assert all(table[f"events_causal_{kind.label}"].is_nan().all() for kind in TokenType)


@pytest.mark.parametrize("registers", [0, 2])
def test_mass_by_token_type_sums_to_one(registers: int) -> None:
    measured = records(registers=registers, planted=False)
    table = block_table(measured, T)
    masses = table.select(f"mass_{kind.label}" for kind in TokenType).to_numpy()
    np.testing.assert_allclose(np.nansum(masses, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(table["mass_patch"], measured.mass["patch"].mean(axis=0), rtol=1e-6)
    assert table["mass_register"].is_nan().all() == (registers == 0)
    assert table["mass_null"].is_nan().all()


def test_norms_variance_and_activations_of_a_block() -> None:
    measured = records()
    table, layout = block_table(measured, T), measured.layout
    where = {"cls": slice(0, 1), "register": slice(1, layout.num_prefix), "patch": slice(layout.num_prefix, None)}
    for kind, tokens in where.items():
        norms = [measured.norms[:, block, tokens].astype(np.float64) for block in range(BLOCKS)]
        for name, function in {"mean": np.mean, "median": np.median, "max": np.max}.items():
            np.testing.assert_allclose(table[f"norm_{kind}_{name}"], [function(x) for x in norms], rtol=1e-5)
    for name, values in measured.tokens.items():
        np.testing.assert_allclose(table[name], values.mean(axis=0), rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(table["largest_max_abs"], measured.tokens["max_abs"].max(axis=0))


@pytest.mark.parametrize(
    ("limits", "limit"),
    [({"outlier_sd": 1.0}, None), ({"outlier_sd": 0.0}, None), ({"outlier_norm": 7.5}, 7.5), ({}, None)],
)
def test_outliers_are_counted_by_the_configured_limit(limits: dict[str, float], limit: float | None) -> None:
    measured = replace(records(), norms=np.random.default_rng(0).lognormal(2, 2.0, records().norms.shape).astype("f4"))
    table = block_table(measured, ThresholdConfig(**limits))
    for block in range(BLOCKS):
        norms = measured.norms[:, block].astype(np.float64)
        most = norms.mean(1, keepdims=True) + limits.get("outlier_sd", 3.0) * norms.std(1, keepdims=True)
        far = norms > (most if limit is None else limit)
        patches = far[:, measured.layout.num_prefix :]
        assert table["norm_patch_outliers"][block] == pytest.approx(patches.mean(), abs=1e-6)
        assert 0 < patches.mean() < 1


def test_tables_keep_the_numbers_of_the_measured_blocks() -> None:
    measured, chosen = records(), [0, 5, 11]
    heads, blocks = head_table(measured, T, chosen), block_table(measured, T, chosen)
    assert heads.select("block", "head").rows() == [(block, head) for block in chosen for head in range(HEADS)]
    assert blocks["block"].to_list() == chosen
    assert heads.drop("block").equals(head_table(measured, T).drop("block"))


@pytest.mark.parametrize("images", [1, 2, 5, 64])
@pytest.mark.parametrize("undefined", [0.0, 0.5, 1.0])
def test_medians_over_images_equal_numpys_to_the_last_bit(images: int, undefined: float) -> None:
    generator = np.random.default_rng(images)
    values = generator.lognormal(0, 20, (images, 3, 4)).astype(np.float32)
    values[generator.random(values.shape) < undefined] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NaN on every image
        expected = np.nanmedian(values, axis=0)
    np.testing.assert_array_equal(_median_over_images(values), expected)

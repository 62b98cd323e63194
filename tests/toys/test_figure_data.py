"""The numbers behind the figures of the toys, against closed forms and the model's own tensors."""

import polars as pl
import pytest
import torch
from variants import noise

from sinkablate.config import ToyConfig
from sinkablate.diagnostics.geometry import query_key_directions, query_key_spectrum
from sinkablate.toys.figure_data import alignments, query_key_values, update_values, value_norms, views_of
from sinkablate.toys.formation import formation_points, history, intervals
from sinkablate.toys.model import ToyTransformer, build_toy

BROADCAST = ToyConfig(task="broadcast", tokens=6, width=8)


@pytest.fixture(scope="module")
def model() -> ToyTransformer:
    return build_toy(BROADCAST, 0).double()


def test_query_key_directions_factor_the_map() -> None:
    query, key = noise(3, 4, 10, dtype=torch.float64), noise(3, 4, 10, seed=1, dtype=torch.float64)
    left, right = query_key_directions(query, key)
    values = query_key_spectrum(query, key)
    torch.testing.assert_close(left @ torch.diag_embed(values) @ right.mT, query.mT @ key)
    for side in (left, right):
        torch.testing.assert_close(side.mT @ side, torch.eye(4, dtype=torch.float64).expand(3, 4, 4))


def test_a_head_that_reads_one_direction_is_aligned_with_it(model: ToyTransformer) -> None:
    """With W_Q^T W_K = 5 a u^T plus an orthogonal rest, the first direction of keys is u and that of queries a."""
    basis, _ = torch.linalg.qr(noise(8, 8, dtype=torch.float64))
    a, u, rest = basis[:, 0], basis[:, 1], basis[:, 2]
    attn = model.blocks[1].attn
    attn.qkv.weight.data[:8] = 5 * torch.outer(basis[:, 7], a) + torch.outer(basis[:, 6], rest)
    attn.qkv.weight.data[8:16] = torch.outer(basis[:, 7], u) + torch.outer(basis[:, 6], rest)
    first = alignments(model, u).filter((pl.col("block") == 1) & (pl.col("index") == 1)).row(0, named=True)
    assert first["key"] == pytest.approx(1, rel=1e-12)
    assert first["query"] == pytest.approx(0, abs=1e-12)
    values = query_key_values(model).filter(pl.col("block") == 1).sort("index")["value"].to_list()
    assert values[:2] == pytest.approx([5, 1], rel=1e-12)
    assert max(values[2:]) < 1e-12


def test_value_norms_mark_the_dominant_column(model: ToyTransformer) -> None:
    tokens = noise(3, 6, 8, dtype=torch.float64)
    view = views_of(model, tokens)[1]
    rows = value_norms(view)
    assert len(rows) == 18
    for b in range(3):
        weights = (view.q[b, 0] @ view.k[b, 0].T * 8**-0.5).softmax(-1)
        for j in range(6):
            row = rows.row(by_predicate=(pl.col("sequence") == b) & (pl.col("column") == j), named=True)
            written = model.blocks[1].attn.proj.weight @ view.v[b, 0, j].double()
            assert row["norm"] == pytest.approx(float(written.norm().detach()), rel=1e-5)
            assert row["sink"] == (j == int(weights.mean(0).argmax()))


def test_a_broadcast_has_one_singular_value(model: ToyTransformer) -> None:
    """Equal keys give every query the same weights, so the update has rank one."""
    uniform = build_toy(BROADCAST, 1).double()
    uniform.blocks[0].attn.qkv.weight.data[8:16] = 0
    tokens = noise(2, 6, 8, dtype=torch.float64)
    values = update_values(views_of(uniform, tokens)[0])
    assert values["median"][0] == 1
    assert max(values["high"][1:]) < 1e-6
    view = views_of(model, tokens[:1])[0]
    update = view.weights()[0, 0] @ view.v[0, 0] @ view.out_map[0].T
    expected = torch.linalg.svdvals(update.double())
    assert update_values(view)["median"].to_list() == pytest.approx((expected / expected[0]).tolist(), abs=1e-6)


def run_of(attention: list[float], mass: list[float]) -> pl.DataFrame:
    """Rows of `metrics.csv`: evaluations every 5 steps, and rows without one in between."""
    evaluations = enumerate(zip(attention, mass, strict=True))
    rows = [{"step": 5 * n + 4, "toy/attention_nop": a, "toy/mass": m} for n, (a, m) in evaluations]
    return pl.DataFrame([*rows, {"step": 7, "toy/attention_nop": None, "toy/mass": None}])


def test_a_sink_forms_when_half_of_the_attention_goes_to_null() -> None:
    runs = [([0.1, 0.49, 0.5, 0.4, 0.9], 14), ([0.6, 0.9, 0.9, 0.9, 0.9], 4), ([0.1, 0.2, 0.3, 0.4, 0.49], None)]
    evaluations = pl.concat(
        history(run_of(attention, [0.1, 0.2, 0.3, 0.4, 0.5 + seed]), 0.5, seed)
        for seed, (attention, _) in enumerate(runs)
    )
    assert len(evaluations) == 15
    points = formation_points(evaluations)
    assert points["formed_step"].to_list() == [step for _, step in runs]
    assert points["final_mass"].to_list() == [0.5, 1.5, 2.5]


def test_intervals_are_students() -> None:
    """Steps 10, 20, 30: mean 20, standard deviation 10, t = 4.302653 with two degrees of freedom."""
    points = pl.DataFrame(
        {"value": [0.1] * 4 + [0.9] + [1.0], "seed": [0, 1, 2, 3, 0, 0], "formed_step": [10, 20, 30, None, 7, None]}
    )
    rows = {row["value"]: row for row in intervals(points, "formed_step").to_dicts()}
    half = 4.302652729749464 * 10 / 3**0.5
    assert (rows[0.1]["runs"], rows[0.1]["defined"], rows[0.1]["mean"]) == (4, 3, 20)
    assert rows[0.1]["low"] == pytest.approx(20 - half)
    assert rows[0.1]["high"] == pytest.approx(20 + half)
    assert (rows[0.9]["mean"], rows[0.9]["low"]) == (7, None)
    assert (rows[1.0]["defined"], rows[1.0]["mean"]) == (0, None)

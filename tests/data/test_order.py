import itertools
import random

import numpy as np
import pytest
import torch

from sinkablate.data.samplers import Draw, EvalBatches, TrainBatches, preserve_random_state, seed_from_draw
from sinkablate.data.stream_split import BatchIndex, LanePlan, StreamBatches


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_global_batches_are_the_same_for_any_number_of_ranks(world: int) -> None:
    single = list(TrainBatches(103, 12, seed=5))
    ranks = [list(TrainBatches(103, 12, seed=5, rank=rank, world=world)) for rank in range(world)]
    assert {len(batches) for batches in ranks} == {103 // 12}
    for number, global_batch in enumerate(single):
        parts = [batches[number] for batches in ranks]
        assert {len(part) for part in parts} == {12 // world}
        assert set(itertools.chain(*parts)) == set(global_batch)


def test_each_epoch_is_a_different_permutation() -> None:
    epochs = [
        [draw.sample for batch in TrainBatches(96, 12, seed=5, position=lambda e=e: (e, 0)) for draw in batch]
        for e in range(3)
    ]
    assert all(sorted(epoch) == list(range(96)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != sorted(epochs[2])
    other = [draw.sample for batch in TrainBatches(96, 12, seed=6) for draw in batch]
    assert other != epochs[0]


@pytest.mark.parametrize("start", [0, 1, 4, 7])
def test_a_start_in_the_middle_continues_the_same_epoch(start: int) -> None:
    epoch = list(TrainBatches(96, 12, seed=1, position=lambda: (3, 0)))
    resumed = TrainBatches(96, 12, seed=1, position=lambda: (3, start))
    assert list(resumed) == epoch[start:]
    assert len(resumed) == len(epoch) == 8


def test_a_start_at_the_end_of_an_epoch_begins_the_next_epoch() -> None:
    at_the_end = TrainBatches(96, 12, seed=1, position=lambda: (3, 8))
    assert list(at_the_end) == list(TrainBatches(96, 12, seed=1, position=lambda: (4, 0)))


def test_repeated_augmentation_keeps_the_epoch_length() -> None:
    batches = list(TrainBatches(96, 12, seed=1, repeats=3))
    draws = list(itertools.chain(*batches))
    assert len(batches) == 8
    assert len(set(draws)) == 96, "no draw is repeated, so each copy is augmented differently"
    images, copies = np.unique([draw.sample for draw in draws], return_counts=True)
    assert len(images) == 32
    assert set(copies) == {3}
    ranks = [list(TrainBatches(96, 12, seed=1, repeats=3, rank=rank, world=3)) for rank in range(3)]
    assert all(len({draw.sample for draw in batch}) == 4 for rank in ranks for batch in rank), "spread over ranks"


@pytest.mark.parametrize("world", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("size", [0, 1, 7, 24])
def test_evaluation_uses_each_sample_once(world: int, size: int) -> None:
    samplers = [EvalBatches(size, 5, rank=rank, world=world) for rank in range(world)]
    samples = [draw.sample for sampler in samplers for batch in sampler for draw in batch]
    assert sorted(samples) == list(range(size))
    assert all(len(list(sampler)) == len(sampler) for sampler in samplers)


def _draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_seeding_depends_only_on_the_draw_and_is_undone() -> None:
    before = _state()
    values = []
    draws = [(1, Draw(0, 1)), (1, Draw(0, 2)), (1, Draw(1, 1)), (2, Draw(0, 1)), (1, Draw(0, 1, 1)), (1, Draw(0, 1))]
    for seed, draw in draws:
        with preserve_random_state():
            seed_from_draw(seed, draw)
            values.append(_draws())
    assert values[0] == values[-1]
    assert all(len({numbers[kind] for numbers in values[:-1]}) == 5 for kind in range(3))
    assert _state() == before


def _state() -> tuple[object, ...]:
    numpy = np.random.get_state(legacy=False)
    return random.getstate(), numpy["state"]["key"].tolist(), numpy["state"]["pos"], torch.get_rng_state().tolist()


COUNTS = (7, 5, 9, 4, 6, 8, 3, 11, 2, 10, 5, 6)


def _plans(world: int, lanes: int, batch: int, seed: int | None) -> list[LanePlan]:
    return [
        LanePlan(counts=COUNTS, batch_size=batch, rank=rank, world=world, lanes=lanes, seed=seed)
        for rank in range(world)
    ]


def _samples(plan: LanePlan, epoch: int) -> list[list[tuple[int, int]]]:
    return [
        [(piece.shard, index) for piece in plan.pieces(epoch, lane) for index in range(piece.start, piece.stop)]
        for lane in range(plan.lanes)
    ]


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("lanes", [1, 2, 3])
@pytest.mark.parametrize("seed", [None, 4])
def test_a_stream_is_split_without_overlap(world: int, lanes: int, seed: int | None) -> None:
    plans = _plans(world, lanes, 3, seed)
    samples = [sample for plan in plans for lane in _samples(plan, 2) for sample in lane]
    assert len(samples) == len(set(samples))
    total = sum(COUNTS)
    assert len(samples) == (total if seed is None else total // (3 * world) * 3 * world)
    for plan in plans:
        for lane, lane_samples in enumerate(_samples(plan, 2)):
            batches = [index for (index,) in StreamBatches(plan) if index.lane == lane]
            assert len(batches) == -(-len(lane_samples) // 3)
    if seed is not None:
        assert len({plan.batches for plan in plans}) == 1


def test_batches_are_assigned_round_robin_from_any_start() -> None:
    (plan,) = _plans(1, 3, 3, 4)
    epoch = [index for (index,) in StreamBatches(plan)]
    assert [index.lane for index in epoch[:4]] == [0, 1, 2, 0]
    resumed = [index for (index,) in StreamBatches(plan, lambda: (0, 4))]
    assert resumed == epoch[4:]
    assert epoch[4] == BatchIndex(0, 1, 1)

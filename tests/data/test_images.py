"""The data module: order and augmentation on any number of ranks, validation, probe images, and refused settings."""

import dataclasses
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from ranked import AUGMENT, TOTAL, Ranked, by_key, ranks, read
from shard_sets import GRAY, members, png, write_set, write_tar

from sinkablate.config import AugmentConfig, SourceConfig
from sinkablate.data.datamodule import ImageData
from sinkablate.errors import UserError


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SourceConfig:
    return write_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def single(source: SourceConfig) -> list[dict[str, tuple[int, torch.Tensor]]]:
    (data,) = ranks(source, 1)
    return [by_key([batch]) for batch in read(data.train_dataloader())]


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_global_batches_do_not_depend_on_ranks_or_workers(
    source: SourceConfig, single: list[dict[str, tuple[int, torch.Tensor]]], world: int, workers: int
) -> None:
    parts = [read(data.train_dataloader()) for data in ranks(source, world, workers)]
    assert {len(part) for part in parts} == {len(single)}
    for number, expected in enumerate(single):
        samples = by_key([part[number] for part in parts])
        assert samples.keys() == expected.keys()
        for key, (target, image) in expected.items():
            assert samples[key][0] == target
            assert torch.equal(samples[key][1], image), "the augmented images are equal to the last bit"


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("reader", ["indexed", "stream"])
def test_validation_uses_each_image_once(tmp_path: Path, reader: str, world: int, workers: int) -> None:
    source = dataclasses.replace(write_set(tmp_path, (5, 3, 4, 2, 6, 1, 3, 2)), reader=reader)
    loaders = [data.val_dataloader() for data in ranks(source, world, workers)]
    batches_by_rank = [read(loader) for loader in loaders]
    assert [len(batches) for batches in batches_by_rank] == [len(loader) for loader in loaders]
    samples = by_key([batch for batches in batches_by_rank for batch in batches])
    assert sorted(samples) == [f"s{number:03d}" for number in range(26)]
    assert all(target == int(key[1:]) % 4 for key, (target, _) in samples.items())


def test_a_rank_may_have_no_validation_image(tmp_path: Path) -> None:
    source = write_set(tmp_path, (2,))
    loaders = [data.val_dataloader() for data in ranks(source, 2, batch=2)]
    assert len(by_key([batch for loader in loaders for batch in loader])) == 2
    lone = Ranked(source, GRAY, AUGMENT, batch_size=2)
    lone.rank_and_world = (2, 3)
    assert len(lone.val_dataloader()) == 0
    assert list(lone.val_dataloader()) == []
    assert lone.allow_zero_length_dataloader_with_multiple_devices


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_trains_on_each_image_at_most_once(source: SourceConfig, world: int, workers: int) -> None:
    streamed = dataclasses.replace(source, reader="stream", shuffle_shards=2)
    parts = [read(data.train_dataloader()) for data in ranks(streamed, world, workers, batch=6)]
    assert {len(part) for part in parts} == {TOTAL // 6}
    samples = by_key([batch for part in parts for batch in part])
    assert len(samples) == TOTAL // 6 * 6
    assert list(samples) != sorted(samples)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("reader", ["indexed", "stream"])
@pytest.mark.parametrize("start", [1, 2, 5])
def test_a_pass_may_start_anywhere(source: SourceConfig, reader: str, workers: int, start: int) -> None:
    class Placed(Ranked):
        position = (0, 0)

        def _position(self) -> tuple[int, int]:
            return self.position

    data = Placed(
        dataclasses.replace(source, reader=reader, shuffle_shards=2), GRAY, AUGMENT, batch_size=6, num_workers=workers
    )
    data.setup("fit")
    loader = data.train_dataloader()
    data.position = (1, 0)
    complete = read(loader)
    data.position = (1, start)
    rest = read(loader)
    assert [batch.key for batch in rest] == [batch.key for batch in complete[start:]]
    assert all(torch.equal(a.image, b.image) for a, b in zip(rest, complete[start:], strict=True))
    data.position = (0, len(complete))
    assert [batch.key for batch in read(loader)] == [batch.key for batch in complete]
    data.position = (2, 0)
    assert [batch.key for batch in read(loader)] != [batch.key for batch in complete]


def test_the_seed_determines_order_and_augmentation(source: SourceConfig) -> None:
    first, repeated, other = (next(iter(ranks(source, 1, seed=seed)[0].train_dataloader())) for seed in (1, 1, 2))
    assert first.key == repeated.key
    assert torch.equal(first.image, repeated.image)
    assert first.key != other.key


def test_loading_does_not_change_the_random_states(source: SourceConfig) -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[union-attr]
    (data,) = ranks(source, 1)
    read(data.train_dataloader())
    read(data.val_dataloader())
    data.probe_images(4)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[union-attr]
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize("reader", ["indexed", "stream"])
def test_probe_images_do_not_depend_on_the_run(source: SourceConfig, reader: str) -> None:
    source = dataclasses.replace(source, reader=reader)
    (one,), (two,) = ranks(source, 1, seed=1), ranks(source, 1, seed=2)
    images, keys, _ = one.probe_images(7)
    assert images.shape == (7, 1, 8, 8)
    assert images.dtype == torch.float32
    assert keys == two.probe_images(7)[1]
    assert torch.equal(images, two.probe_images(7)[0])
    assert one.probe_images(3)[1] == keys[:3]
    assert len(set(keys)) == 7
    assert len(one.probe_images(10_000)[1]) == TOTAL
    evaluated = by_key(read(one.val_dataloader()))
    assert all(torch.equal(evaluated[key][1], image) for key, image in zip(keys, images, strict=True))


def test_inconsistent_settings_are_refused_with_their_keys(source: SourceConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.batch_size=10: must be a multiple of the 3 processes"):
        ranks(source, 3, batch=10)
    with pytest.raises(UserError, match=r"data.batch_size=900: exceeds the 39 images"):
        ranks(source, 1, batch=900)
    with pytest.raises(UserError, match=r"6 shards for 8 readers .*data.num_workers=2"):
        ranks(dataclasses.replace(source, reader="stream"), 4, workers=2)
    with pytest.raises(UserError, match=r"data.source.train=.*: no file matches"):
        ranks(dataclasses.replace(source, train=f"{tmp_path}/none-*.tar"), 1)
    with pytest.raises(UserError, match=r"data.source.train.*IMAGENET_TRAIN"):
        ranks(dataclasses.replace(source, train="$IMAGENET_TRAIN"), 1)
    with pytest.raises(UserError, match=r"data.source.train=pipe:.*; set data.source.reader=stream"):
        ranks(dataclasses.replace(source, train="pipe:cat a.tar"), 1)
    write_tar(tmp_path / "empty.tar", [])
    with pytest.raises(UserError, match=r"data.source.val=.*empty.tar: the split contains no images"):
        ranks(dataclasses.replace(source, val=str(tmp_path / "empty.tar")), 1)
    with pytest.raises(UserError, match=r"data.augment.aug_repeats=2: .*; set data.source.reader=indexed"):
        ImageData(dataclasses.replace(source, reader="stream"), augment=AugmentConfig(aug_repeats=2))


def test_a_stream_reads_pipes(tmp_path: Path) -> None:
    write_set(tmp_path)
    location = f"pipe:cat {tmp_path}/set-{{0000..0005}}.tar"
    source = SourceConfig(format="shards", train=location, val=location, reader="stream", num_classes=4)
    assert len(by_key(read(ranks(source, 2)[0].val_dataloader()))) == TOTAL // 2
    os.remove(tmp_path / "manifest.json")
    with pytest.raises(UserError, match=r"data.source.train: a stream needs .*manifest.json"):
        ranks(source, 1)


def test_the_index_is_stored_next_to_the_shards_and_rebuilt_when_they_change(tmp_path: Path) -> None:
    source = write_set(tmp_path)
    ranks(source, 1)
    (cache,) = tmp_path.glob(".sinkablate-index-*.npz")
    before = cache.stat().st_mtime_ns
    ranks(source, 1)
    assert cache.stat().st_mtime_ns == before
    write_tar(tmp_path / "set-0001.tar", members(200, 6))
    (data,) = ranks(source, 1)
    assert "s205" in by_key(read(data.val_dataloader()))
    cache.write_bytes(b"cut")
    assert len(ranks(source, 1)[0].val_dataloader().dataset) == TOTAL + 1  # type: ignore[arg-type]


def test_one_folder_per_class_is_read(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"c{number % 3}").mkdir(exist_ok=True)
        (tmp_path / f"c{number % 3}" / f"{number}.png").write_bytes(png(number))
    source = SourceConfig(format="folder", train=str(tmp_path), val=str(tmp_path), num_classes=3)
    (data,) = ranks(source, 1, workers=2, batch=6)
    samples = by_key(read(data.val_dataloader()))
    assert {key: target for key, (target, _) in samples.items()} == {f"c{n % 3}/{n}": n % 3 for n in range(12)}
    with pytest.raises(UserError, match="num_classes"):
        ranks(dataclasses.replace(source, num_classes=2), 1, batch=6)
    with pytest.raises(UserError, match=r"data.source.val=nowhere: no such directory"):
        ranks(dataclasses.replace(source, val="nowhere"), 1, batch=6)


def test_the_embedded_images_are_balanced_and_normalized() -> None:
    data = ImageData()
    data.setup("fit")
    train, val = data.train_dataloader(), data.val_dataloader()
    assert len(train) == 10_000 // 64
    targets = torch.cat([batch.target for batch in val])
    assert torch.bincount(targets).tolist() == [200] * 10
    counts = np.bincount([data._open("train")[index].target for index in range(10_000)])
    assert counts.tolist() == [1000] * 10
    images = data.probe_images(500).images
    assert images.shape == (500, 1, 28, 28)
    assert abs(float(images.mean())) < 0.1
    assert abs(float(images.std()) - 1) < 0.1

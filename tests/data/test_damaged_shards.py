"""Damaged shards, wrong labels and wrong channels are reported in one line, or skipped and counted."""

import dataclasses
from pathlib import Path

import pytest
from ranked import TOTAL, by_key, ranks, read
from shard_sets import GRAY, members, png, write_set, write_tar

from sinkablate.config import SourceConfig
from sinkablate.data.datamodule import ImageData
from sinkablate.data.errors import ErrorPolicy
from sinkablate.data.tar_index import TarRecords, _open_raw
from sinkablate.errors import UserError


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SourceConfig:
    return write_set(tmp_path_factory.mktemp("set"))


def _break_image(root: Path) -> None:
    content = members(7, 5)
    content[4] = (content[4][0], content[4][1][:40])
    write_tar(root / "set-0001.tar", content)


def _cut(root: Path) -> None:
    data = (root / "set-0001.tar").read_bytes()
    (root / "set-0001.tar").write_bytes(data[: 2048 * 3])  # between two samples, which tarfile itself does not detect


def _cut_inside(root: Path) -> None:
    data = (root / "set-0001.tar").read_bytes()
    (root / "set-0001.tar").write_bytes(data[: 2048 * 3 + 700])


def _remove(root: Path) -> None:
    (root / "set-0001.tar").unlink()


def _wrong_label(root: Path) -> None:
    write_tar(root / "set-0001.tar", [*members(7, 4), ("s011.png", png(11)), ("s011.cls", b"4")])


def _color(root: Path) -> None:
    write_tar(root / "set-0001.tar", [*members(7, 4), *members(11, 1, "RGB")])


FAULTS = [
    (_break_image, "s009"),
    (_cut, ""),
    (_cut_inside, ""),
    (_remove, ""),
    (_wrong_label, "s011"),
    (_color, "s011"),
]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("reader", ["indexed", "stream"])
@pytest.mark.parametrize(("fault", "key"), FAULTS)
def test_a_damaged_shard_is_reported_in_one_line(tmp_path: Path, reader: str, fault, key: str, workers: int) -> None:  # type: ignore[no-untyped-def]
    source = dataclasses.replace(write_set(tmp_path), reader=reader)
    fault(tmp_path)
    with pytest.raises(UserError) as caught:
        read(ranks(source, 1, workers)[0].val_dataloader())
    message = str(caught.value)
    assert "set-0001.tar" in message
    assert key in message
    assert "Traceback" not in message
    assert "\n" not in message


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("reader", ["indexed", "stream"])
@pytest.mark.parametrize(("fault", "lost"), [(_break_image, 1), (_remove, 5), (_color, 1)])
def test_a_skipped_damage_is_counted(tmp_path: Path, reader: str, fault, lost: int, workers: int) -> None:  # type: ignore[no-untyped-def]
    source = dataclasses.replace(write_set(tmp_path), reader=reader, on_error="skip")
    fault(tmp_path)
    (data,) = ranks(source, 1, workers)
    assert len(by_key(read(data.val_dataloader()))) == TOTAL - lost
    assert data.usage.skipped.total() > 0
    sizes = [len(batch.target) for batch in read(data.train_dataloader())]
    assert set(sizes) == {12}, "training batches keep their size"


def test_labels_out_of_range_are_refused_before_training(source: SourceConfig) -> None:
    with pytest.raises(UserError, match=r"set-0000.tar: s003: the label 3 is not in \[0, 3\).*num_classes"):
        ranks(dataclasses.replace(source, num_classes=3), 1)


@pytest.mark.parametrize("reader", ["indexed", "stream"])
def test_a_wrong_number_of_channels_is_refused_before_training(tmp_path: Path, reader: str) -> None:
    source = dataclasses.replace(write_set(tmp_path, (8, 8), "RGB"), reader=reader)
    with pytest.raises(UserError, match=r"3 channels .*data.image.in_chans=1"):
        ranks(source, 1)
    converting = ImageData(source, dataclasses.replace(GRAY, convert=True), batch_size=4)
    converting.setup("fit")
    assert next(iter(converting.train_dataloader())).image.shape == (4, 1, 8, 8)


def test_a_shard_is_not_closed_while_a_sample_is_read(source: SourceConfig) -> None:
    """Two threads may open one shard at a time; only one of the two files stays in the cache of open files."""
    shard = Path(source.train).parent / "set-0000.tar"
    records = TarRecords([str(shard)], num_classes=4, on_error=ErrorPolicy("stop"))
    records._open = _open_raw  # type: ignore[assignment]
    assert records[0].image == members(0, 1)[0][1]

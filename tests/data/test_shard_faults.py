"""Tar shards that other tools write, or that are damaged, in both readers of `fit` and in `diagnose`."""

import bz2
import dataclasses
import gzip
import io
import lzma
import tarfile
from pathlib import Path

import pytest
import torch
from shard_sets import GRAY, members, png, write_tar
from tar_sources import keys, source_of

from sinkablate.data.datamodule import ImageData
from sinkablate.data.errors import DataError
from sinkablate.data.samples import Encoded
from sinkablate.diagnose.images import ImageSource
from sinkablate.errors import UserError

READERS = ["indexed", "stream"]
Members = list[tuple[str, bytes]]


def sample(key: str, number: int, image: str = "png", label: str = "cls") -> Members:
    return [(f"{key}.{image}", png(number)), (f"{key}.{label}", str(number % 4).encode())]


def diagnosed(path: Path) -> dict[str, bytes | str]:
    """Bytes of each image that `diagnose` would measure, or the reason for which it is skipped."""
    read: list[bytes] = []

    def prepare(encoded: Encoded) -> torch.Tensor:
        assert isinstance(encoded.image, bytes)
        read.append(encoded.image)
        return torch.zeros(1)

    images: dict[str, bytes | str] = {}
    for image in ImageSource(str(path), prepare).start(0):
        try:
            image.load()
            images[image.name] = read.pop()
        except DataError as error:
            images[image.name] = error.reason
    return images


VALID: dict[str, tuple[Members, dict[str, int]]] = {
    "dots in names": ([*sample("22", 0, "05.png", "05.cls"), *sample("23", 1, "05.png", "05.cls")], {"22": 0, "23": 1}),
    "image next to a mask": (
        [*sample("a", 1), ("a.mask.png", png(9)), *sample("b", 2), ("b.depth.png", png(9))],
        {"a": 1, "b": 2},
    ),
    "more than images": ([("a.json", b"{}"), *sample("a", 1), *sample("b", 2), ("b.txt", b"a dog")], {"a": 1, "b": 2}),
    "upper case": ([("a.PNG", png(1)), ("a.CLS", b"1"), ("b.Jpg", png(2)), ("b.cls", b"2")], {"a": 1, "b": 2}),
    "folders and leading dots": ([*sample("./x/a", 1), *sample("./y/a", 2)], {"./x/a": 1, "./y/a": 2}),
    "hidden files": (
        [
            ("._a.png", b"x"),
            *sample("a", 1),
            ("x/._b.png", b"x"),
            *sample("x/b", 2),
            (".ipynb_checkpoints/a.png", png(3)),
            ("__MACOSX/._a.png", b"x"),
            ("x/Thumbs.db", b"x"),
        ],
        {"a": 1, "x/b": 2},
    ),
    "names without a suffix": (
        [("README", b"x"), *sample("a", 1), ("LICENSE", b"x"), *sample("b", 2)],
        {"a": 1, "b": 2},
    ),
    "webdataset's own": (
        [("__header__", b"x"), *sample("a", 1), ("__meta__/b.png", png(1)), *sample("b", 2)],
        {"a": 1, "b": 2},
    ),
}
INVALID: dict[str, tuple[Members, str, str]] = {
    "several images of one kind": (
        [("22.05.png", png(0)), ("22.06.png", png(1)), ("22.cls", b"1")],
        "several images",
        "22: the sample is ambiguous: it has .05.png, .06.png",
    ),
    "left and right": (
        [("a.left.png", png(0)), ("a.right.png", png(1)), ("a.cls", b"1")],
        "several images",
        "a: the sample is ambiguous: it has .left.png, .right.png",
    ),
    "two formats": ([("a.png", png(0)), ("a.jpg", png(1)), ("a.cls", b"1")], "several images", ".png, .jpg"),
    "the same names again": ([*sample("a", 1), *sample("a", 2)], "key given twice", "a.cls"),
    "the same key later": ([*sample("a", 1), *sample("b", 2), *sample("a", 3)], "key given twice", "a: the key"),
    "no label": ([("a.png", png(0)), ("a.txt", b"1")], "no image or no label", "a: a sample needs an image and a .cls"),
    "no image": ([("a.json", b"{}"), ("a.cls", b"1")], "no image or no label", "a: a sample needs an image and a .cls"),
    "a label of words": ([("a.png", png(0)), ("a.cls", b"dog")], "wrong label", "a: the label b'dog'"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("case", VALID)
def test_samples_follow_the_rule_of_webdataset(case: str, reader: str, tmp_path: Path) -> None:
    content, expected = VALID[case]
    write_tar(tmp_path / "set.tar", content)
    assert keys(source_of(tmp_path, reader, len(expected))) == expected


@pytest.mark.parametrize("case", VALID)
def test_diagnose_measures_the_same_images(case: str, tmp_path: Path) -> None:
    content, expected = VALID[case]
    write_tar(tmp_path / "set.tar", content)
    assert diagnosed(tmp_path / "set.tar") == {key: png(number) for key, number in expected.items()}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_sample_is_reported_or_skipped_and_counted(case: str, reader: str, tmp_path: Path) -> None:
    content, reason, message = INVALID[case]
    content = [*content, *sample("z", 3)]
    write_tar(tmp_path / "set.tar", content)
    count = 4 if case == "the same key later" else 2
    source = source_of(tmp_path, reader, count)
    with pytest.raises(DataError) as caught:
        keys(source)
    assert "set.tar" in str(caught.value)
    assert message in str(caught.value)
    assert str(caught.value).count("on_error=skip") == 1
    data = ImageData(dataclasses.replace(source, on_error="skip"), GRAY, batch_size=1)
    data.setup("fit")
    read_keys = [key for batch in data.val_dataloader() for key in batch.key]
    assert "z" in read_keys
    assert len(read_keys) == len(set(read_keys))
    assert data.usage.skipped[reason] >= 1


@pytest.mark.parametrize("case", ["several images of one kind", "left and right", "two formats"])
def test_diagnose_refuses_a_sample_with_several_images(case: str, tmp_path: Path) -> None:
    content, _, message = INVALID[case]
    write_tar(tmp_path / "set.tar", content)
    with pytest.raises(UserError, match=rf"images=.*set.tar.*{message}"):
        diagnosed(tmp_path / "set.tar")


def test_diagnose_counts_samples_without_an_image_and_keys_given_twice(tmp_path: Path) -> None:
    write_tar(tmp_path / "set.tar", [("a.json", b"{}"), *sample("b", 2), *sample("c", 3), *sample("b", 4)])
    images = list(ImageSource(str(tmp_path / "set.tar"), lambda _: torch.zeros(1)).start(0))
    reasons = []
    for image in images:
        try:
            image.load()
        except DataError as error:
            reasons.append(error.reason)
    assert [image.name for image in images] == ["a", "b", "c", "b"]
    assert reasons == ["no image or no label", "key given twice"]


PACKERS = {
    "set.tar.gz": gzip.compress,
    "set.tgz": gzip.compress,
    "set.tar.bz2": bz2.compress,
    "set.tar.xz": lzma.compress,
}


@pytest.mark.parametrize("name", PACKERS)
def test_compressed_shards_are_read(name: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "set.tar", members(0, 3))
    packed = PACKERS[name]((tmp_path / "set.tar").read_bytes())
    (tmp_path / "set.tar").unlink()
    (tmp_path / name).write_bytes(packed)
    expected = {f"s{number:03d}": number for number in range(3)}
    for reader in READERS:
        source = source_of(tmp_path, reader, 3, name)
        assert keys(source) == expected
        assert keys(dataclasses.replace(source, train=str(tmp_path), val=str(tmp_path))) == expected
    assert diagnosed(tmp_path / name) == {key: png(number) for key, number in expected.items()}
    (tmp_path / name).write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match=rf"{name}: the shard is truncated or not"):
        keys(source_of(tmp_path, "indexed", 3, name))
    with pytest.raises(UserError, match=rf"images=.*{name}: the shard (cannot be read|is truncated)"):
        diagnosed(tmp_path / name)


def test_zstandard_is_refused_and_named(tmp_path: Path) -> None:
    (tmp_path / "set.tar.zst").write_bytes(b"x")
    for reader in READERS:
        with pytest.raises(UserError, match=r"data.source.train=.*set.tar.zst: Zstandard is not supported"):
            keys(source_of(tmp_path, reader, 1, "set.tar.zst"))
    with pytest.raises(UserError, match=r"images=.*set.tar.zst: Zstandard is not supported"):
        diagnosed(tmp_path / "set.tar.zst")


@pytest.mark.parametrize("content", [bytes(10_240), b"", b"not a tar\n" * 200])
def test_an_empty_tar_is_refused_and_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "empty.tar").write_bytes(content)
    with pytest.raises(UserError, match=r"empty.tar"):
        keys(source_of(tmp_path, "indexed", 0, "empty.tar"))
    with pytest.raises(UserError, match=r"empty.tar"):
        keys(source_of(tmp_path, "stream", 1, "empty.tar"))


def test_diagnose_detects_a_tar_that_is_truncated_between_two_samples(tmp_path: Path) -> None:
    write_tar(tmp_path / "set.tar", members(0, 4))
    (tmp_path / "set.tar").write_bytes((tmp_path / "set.tar").read_bytes()[: 2048 * 2])
    with pytest.raises(UserError, match=r"images=.*set.tar: the shard is truncated"):
        diagnosed(tmp_path / "set.tar")


def test_links_folders_and_devices_are_ignored(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        for name, kind in (
            ("a.png", tarfile.SYMTYPE),
            ("b.png", tarfile.LNKTYPE),
            ("c.png", tarfile.DIRTYPE),
            ("d.png", tarfile.CHRTYPE),
            ("e.png", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/hostname"
            tar.addfile(info)
        for name, data in sample("z", 3):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    for reader in READERS:
        assert keys(source_of(tmp_path, reader, 1)) == {"z": 3}
    assert diagnosed(tmp_path / "set.tar") == {"z": png(3)}


def test_hidden_shards_of_a_folder_are_ignored(tmp_path: Path) -> None:
    write_tar(tmp_path / "set.tar", members(0, 2))
    (tmp_path / "._set.tar").write_bytes(b"x")
    source = dataclasses.replace(source_of(tmp_path, "indexed", 2), train=str(tmp_path), val=str(tmp_path))
    assert keys(source) == {"s000": 0, "s001": 1}
    assert list(diagnosed(tmp_path)) == ["s000", "s001"]


def test_diagnose_refuses_a_folder_of_shards_and_images(tmp_path: Path) -> None:
    write_tar(tmp_path / "set.tar", members(0, 2))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.png").write_bytes(png(0))
    with pytest.raises(UserError, match=r"holds shards and images"):
        diagnosed(tmp_path)


@pytest.mark.parametrize("name", ["photo.heic", "paper.pdf", "weights.pt", "noname"])
def test_diagnose_refuses_a_file_that_is_neither_image_nor_list_nor_shard(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=rf"images=.*{name}: neither an image"):
        diagnosed(tmp_path / name)

import gzip
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shard_sets import png

from sinkablate.config import ImageConfig, SourceConfig
from sinkablate.data import embedded
from sinkablate.data.datamodule import ImageData
from sinkablate.data.locations import expand_location
from sinkablate.data.shards import write_shards
from sinkablate.errors import UserError

EMBEDDED = Path(embedded.__file__).parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(20):
        path = tmp_path / "src" / ("even" if number % 2 == 0 else "odd") / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return tmp_path / "src"


def write_idx(root: Path, labels: list[int], prefix: str) -> None:
    images = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), 6, 5), dtype=np.uint8)
    head = bytes([0, 0, 8, 3]) + np.array(images.shape, ">u4").tobytes()
    (root / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + images.tobytes()))
    head = bytes([0, 0, 8, 1]) + np.array([len(labels)], ">u4").tobytes()
    (root / f"{prefix}-labels-idx1-ubyte").write_bytes(head + bytes(labels))


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


@pytest.mark.parametrize("compress", [False, True])
def test_the_same_call_writes_the_same_bytes(folder: Path, tmp_path: Path, compress: bool) -> None:
    for name in ("a", "b"):
        counts = write_shards(str(folder), str(tmp_path / name), samples_per_shard=8, compress=compress)
    write_shards(str(folder), str(tmp_path / "c"), samples_per_shard=8, compress=compress, seed=1)
    assert sorted(counts.values()) == [4, 8, 8]
    assert contents(tmp_path / "a") == contents(tmp_path / "b") != contents(tmp_path / "c")
    assert json.loads((tmp_path / "a" / "manifest.json").read_text()) == {"shards": counts, "classes": ["even", "odd"]}
    assert {path.name for path in tmp_path.iterdir()} == {"src", "a", "b", "c"}, "no temporary folder is left"


@pytest.mark.parametrize("reader", ["indexed", "stream"])
@pytest.mark.parametrize("compress", [False, True])
def test_written_shards_are_read_back(folder: Path, tmp_path: Path, reader: str, compress: bool) -> None:
    write_shards(str(folder), str(tmp_path / "out"), samples_per_shard=6, compress=compress)
    source = SourceConfig(
        format="shards", train=str(tmp_path / "out"), val=str(tmp_path / "out"), reader=reader, num_classes=2
    )
    data = ImageData(source, ImageConfig(size=8, mean=(0.0,), std=(1.0,)), batch_size=4)
    data.setup("fit")
    from_shards = _labels_and_pixels(data)
    from_folder = SourceConfig(format="folder", train=str(folder), val=str(folder), num_classes=2)
    data = ImageData(from_folder, ImageConfig(size=8, mean=(0.0,), std=(1.0,)), batch_size=4)
    data.setup("fit")
    expected = _labels_and_pixels(data)
    assert sorted(from_shards) == sorted(expected)
    assert [label for label, _ in from_shards] != [label for label, _ in expected], "classes are mixed within shards"


def _labels_and_pixels(data: ImageData) -> list[tuple[int, bytes]]:
    return [
        (int(target), image.numpy().tobytes())
        for batch in data.val_dataloader()
        for target, image in zip(batch.target, batch.image, strict=True)
    ]


def test_idx_files_become_two_balanced_splits(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    write_idx(tmp_path / "src", [0, 1, 2] * 7 + [1] * 9, "train")
    write_idx(tmp_path / "src", [0, 1, 2] * 3, "t10k")
    out = tmp_path / "out"
    counts = write_shards(str(tmp_path / "src"), str(out), samples_per_shard=10, train_per_class=6, val_per_class=2)
    assert counts == {"train-0000.tar": 10, "train-0001.tar": 8, "val-0000.tar": 6}
    labels = []
    for shard in ("train-0000.tar", "train-0001.tar"):
        with tarfile.open(out / shard) as tar:
            assert all(member.mtime == member.uid == member.gid == 0 for member in tar)
            labels += [int(tar.extractfile(m).read()) for m in tar if m.name.endswith(".cls")]  # type: ignore[union-attr]
    assert np.bincount(labels).tolist() == [6, 6, 6]
    with pytest.raises(UserError, match="val_per_class=4: class 0 has only 3 images"):
        write_shards(str(tmp_path / "src"), str(tmp_path / "more"), split="val", val_per_class=4)
    assert not (tmp_path / "more").exists()


def test_nothing_is_overwritten_and_invalid_sources_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="src: already exists and is not an empty directory"):
        write_shards(str(folder), str(folder))
    with pytest.raises(UserError, match="nowhere: no such directory"):
        write_shards(str(tmp_path / "nowhere"), str(tmp_path / "out"))
    (tmp_path / "hollow").mkdir()
    with pytest.raises(UserError, match="neither IDX files nor one folder"):
        write_shards(str(tmp_path / "hollow"), str(tmp_path / "out"))
    write_idx(tmp_path / "hollow", [0, 1], "train")
    with pytest.raises(UserError, match="t10k-images-idx3-ubyte"):
        write_shards(str(tmp_path / "hollow"), str(tmp_path / "out"))
    (tmp_path / "hollow" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x03cut short here"))
    with pytest.raises(UserError, match="not a complete IDX file"):
        write_shards(str(tmp_path / "hollow"), str(tmp_path / "out"), split="train")


def test_the_command_does_not_import_torch() -> None:
    heavy = ("torch", "lightning", "webdataset")
    code = f"import sys, sinkablate.data.shards; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_embedded_set_is_small_and_includes_its_license() -> None:
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir() if path.is_file()) <= 8 * 2**20
    assert "MIT License" in (EMBEDDED / "LICENSE").read_text()
    assert "Zalando SE" in (EMBEDDED / "LICENSE").read_text()
    assert "zalandoresearch/fashion-mnist" in (EMBEDDED / "README.md").read_text()


@pytest.mark.parametrize("split", ["val", pytest.param("train", marks=pytest.mark.slow)])
def test_the_embedded_set_can_be_reproduced_as_its_readme_says(fashion_mnist: Path, tmp_path: Path, split: str) -> None:
    out = tmp_path / "out"
    counts = write_shards(str(fashion_mnist), str(out), split=split, train_per_class=1000, val_per_class=200)  # type: ignore[arg-type]
    shipped = json.loads((EMBEDDED / "manifest.json").read_text())["shards"]
    assert {f"{name}.gz": count for name, count in counts.items()} == {n: c for n, c in shipped.items() if split in n}
    for shard in counts:
        with tarfile.open(out / shard) as written, tarfile.open(EMBEDDED / f"{shard}.gz") as packed:
            assert _samples(written) == _samples(packed)


def _samples(tar: tarfile.TarFile) -> list[tuple[str, bytes]]:
    """Names with labels or pixels; the compressed bytes depend on the version of zlib."""
    contents = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    return [(n, data if n.endswith(".cls") else Image.open(io.BytesIO(data)).tobytes()) for n, data in contents]


def test_a_file_named_like_a_command_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "pipe:touch executed #0.tar"
    (tmp_path / name).touch()
    assert expand_location("*.tar", "key") == expand_location(f"file:{name}", "key") == [f"./{name}"]


def test_a_range_of_too_many_shards_is_refused() -> None:
    with pytest.raises(UserError, match=r"key=.*: more than 1,000,000 shards"):
        expand_location("train-{0..999999999}.tar", "key")

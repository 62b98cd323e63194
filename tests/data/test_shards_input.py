"""`shards` on folders and files as people have them: it packs the images, or explains in one line why it cannot."""

import gzip
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import assert_refused, run, tree


def picture(path: Path, number: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "PNG")


def two_classes(root: Path) -> Path:
    for number, name in enumerate(("bird/1.png", "bird/2.png", "cat/1.png", "cat/2.png")):
        picture(root / name, number)
    return root


def idx(root: Path, images: int, labels: int | None = None) -> Path:
    root.mkdir()
    head = bytes([0, 0, 8, 3]) + np.array([images, 3, 3], ">u4").tobytes()
    (root / "train-images-idx3-ubyte").write_bytes(head + bytes(images * 9))
    count = images if labels is None else labels
    (root / "train-labels-idx1-ubyte").write_bytes(
        bytes([0, 0, 8, 1]) + np.array([count], ">u4").tobytes() + bytes(count)
    )
    return root


def scripts(root: Path) -> Path:
    for folder in ("tools", "figures"):
        picture(root / folder / "logo.png")
        for number in range(3):
            (root / folder / f"{number}.py").write_text("pass\n")
    return root


def one_folder_of_scripts(root: Path) -> Path:
    picture(root / "package" / "deep" / "icon.png")
    for name in ("setup.py", "README.md", "package/code.py"):
        (root / name).write_text("x")
    return root


def bare_train(root: Path) -> Path:
    two_classes(root / "train")
    return root


def all_empty(root: Path) -> Path:
    two_classes(root)
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    return root


def flat(root: Path) -> Path:
    for number in range(3):
        picture(root / f"{number}.png", number)
    return root


def damaged_idx(content: bytes) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        idx(root, 2)
        (root / "train-images-idx3-ubyte").write_bytes(content)
        return root

    return make


def packed_idx(root: Path) -> Path:
    idx(root, 2)
    compressed = gzip.compress((root / "train-images-idx3-ubyte").read_bytes())
    (root / "train-images-idx3-ubyte.gz").write_bytes(compressed[:10] + b"\xff\xff\xff" + compressed[13:])
    return root


REFUSED: dict[str, tuple[Callable[[Path], Path], str, list[str]]] = {
    "no image per class": (two_classes, "--train_per_class 0", ["train_per_class must be at least 1, got 0"]),
    "fewer than none": (two_classes, "--train_per_class -1", ["train_per_class must be at least 1, got -1"]),
    "no validation image": (two_classes, "--val_per_class 0", ["val_per_class must be at least 1, got 0"]),
    "more than there are": (two_classes, "--train_per_class 3", ["train_per_class=3: class bird has only 2 images"]),
    "negative seed": (two_classes, "--seed -1", ["seed must be at least 0, got -1"]),
    "no sample per shard": (two_classes, "--samples_per_shard 0", ["samples_per_shard must be at least 1, got 0"]),
    "seed in args": (two_classes, "--seed one", ["seed"]),
    "unknown split": (two_classes, "--split dev", ["split"]),
    "unknown key": (two_classes, "--seeds 1", ["seeds"]),
    "scripts": (scripts, "", ["contains 2 images among 6 other files", "not an image that can be read (.py): 6"]),
    "scripts around one folder": (one_folder_of_scripts, "", ["contains 1 images among 3 other files"]),
    "no validation set": (bare_train, "", ["its folders (train) are splits", "/train"]),
    "images without folders": (flat, "", ["neither IDX files nor one folder of images per class"]),
    "empty files": (all_empty, "", ["contains no images", "empty file: 4"]),
    "IDX of no images": (lambda root: idx(root, 0), "--split train", ["train contains no images"]),
    "IDX of other labels": (lambda root: idx(root, 3, 2), "--split train", ["3 images and 2 labels"]),
    "IDX, header alone": (damaged_idx(bytes([0, 0, 8, 3])), "--split train", ["train-images-idx3-ubyte", "IDX"]),
    "IDX, cut header": (damaged_idx(bytes([0, 0, 8, 3, 0, 0, 0])), "--split train", ["train-images-idx3-ubyte"]),
    "IDX, nothing": (damaged_idx(b""), "--split train", ["train-images-idx3-ubyte"]),
    "IDX, sizes beyond all": (
        damaged_idx(bytes([0, 0, 8, 3]) + b"\xff" * 12),
        "--split train",
        ["train-images-idx3-ubyte"],
    ),
    "IDX, damaged gzip": (packed_idx, "--split train", ["train-images-idx3-ubyte.gz"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_input_is_refused_in_one_line_and_nothing_is_written(case: str, tmp_path: Path) -> None:
    make, args, phrases = REFUSED[case]
    make(tmp_path / "src")
    before = tree(tmp_path)
    assert_refused(run("shards", tmp_path / "src", tmp_path / "out", *args.split()), *phrases)
    assert tree(tmp_path) == before
    assert sorted(os.listdir(tmp_path)) == ["src"]


def test_hidden_and_empty_files_are_not_packed_and_counted(tmp_path: Path) -> None:
    src = two_classes(tmp_path / "src")
    for name in ("bird/._1.png", ".ipynb_checkpoints/x.png", "cat/.hidden/x.png", "bird/Thumbs.db", ".DS_Store"):
        picture(src / name)
    (src / "cat" / "3.png").write_bytes(b"")
    (src / "cat" / "4.png").symlink_to(tmp_path / "nowhere")
    (src / "cat" / "notes.txt").write_text("x")
    (src / "elk").symlink_to(two_classes(tmp_path / "linked") / "bird")
    outcome = run("shards", src, tmp_path / "out").succeeded()
    assert "6 images in 1 shard" in outcome.out
    for phrase in ("train: files not packed: ", "empty file: 1", "unreadable file: 1", "(.txt)"):
        assert phrase in outcome.err
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest == {"shards": {"train-0000.tar": 6}, "classes": ["bird", "cat", "elk"]}
    with tarfile.open(tmp_path / "out" / "train-0000.tar") as tar:
        assert all(member.size > 0 for member in tar)


def test_every_format_that_pillow_reads_is_packed(tmp_path: Path) -> None:
    src = two_classes(tmp_path / "src")
    for name in ("a.GIF", "b.webp", "c.TIF", "d.avif"):
        picture(src / "cat" / name)
    run("shards", src, tmp_path / "out").succeeded()
    with tarfile.open(tmp_path / "out" / "train-0000.tar") as tar:
        suffixes = sorted(name.rpartition(".")[2] for name in tar.getnames())
    assert suffixes == sorted(["png"] * 4 + ["gif", "webp", "tif", "avif"] + ["cls"] * 8)


def test_a_file_that_disappears_is_named_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    src = two_classes(tmp_path / "src")
    gone = src / "cat" / "2.png"
    read = Path.read_bytes

    def reading(path: Path) -> bytes:
        gone.unlink(missing_ok=True)  # as if it were moved while the others are packed
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", reading)
    assert_refused(run("shards", src, tmp_path / "out"), str(gone), "cannot be read")
    assert sorted(os.listdir(tmp_path)) == ["src"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, mounted for the test."""
    target = tmp_path / "disk"
    target.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(target)]
    if os.name != "posix" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted")
    yield target
    subprocess.run(["umount", "-l", str(target)], check=True)


def test_a_full_or_read_only_disk_is_reported(small_disk: Path, tmp_path: Path) -> None:
    src = two_classes(tmp_path / "src")
    for number in range(80):
        picture(src / "cat" / f"more{number}.png", number)
    assert_refused(run("shards", src, small_disk / "out"), str(small_disk / "out"), "No space left")
    assert os.listdir(small_disk) == []
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert_refused(run("shards", src, small_disk / "out"), str(small_disk / "out"), "Read-only file system")


def test_a_long_packing_reports_its_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sinkablate.data.shards._PROGRESS_SECONDS", -1)
    outcome = run("shards", two_classes(tmp_path / "src"), tmp_path / "out").succeeded()
    assert "packing: 1 of 4 images" in outcome.err
    shutil.rmtree(tmp_path / "out")

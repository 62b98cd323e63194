"""Broken data sets and files, and an empty working directory, for tests of commands."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sinkablate.data.shards import write_shards


def truncate(path: Path, target: Path) -> None:
    """Write the first two thirds of a file to another path."""
    content = path.read_bytes()
    target.write_bytes(content[: len(content) * 2 // 3])


@pytest.fixture(scope="module")
def paths(image_folder: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Paths by the names that the cases use: intact data sets, broken copies of them, and broken files."""
    root = tmp_path_factory.mktemp("paths")
    write_shards(str(image_folder), str(root / "set"), samples_per_shard=10)
    for name in ("missing", "cut", "garbage"):
        shutil.copytree(root / "set", root / name)
    (root / "missing" / "train-0001.tar").unlink()
    truncate(root / "set" / "train-0001.tar", root / "cut" / "train-0001.tar")
    (root / "garbage" / "train-0000.tar").write_bytes(b"not a tar file\n" * 1000)
    (root / "files").mkdir()
    (root / "files" / "empty.tar").write_bytes(bytes(10240))
    (root / "files" / "bad.yaml").write_text("model: {backbone: [\n")
    (root / "files" / "unknown.yaml").write_text("model: {backbone: {gates: 1}}\n")
    weights = {"head.weight": torch.zeros(10, 64), "cls_token": torch.zeros(1, 1, 48)}
    torch.save(weights, root / "files" / "other.pt")
    save_file(weights, root / "files" / "whole.safetensors")
    truncate(root / "files" / "whole.safetensors", root / "files" / "cut.safetensors")
    truncate(finished / "checkpoints" / "last.ckpt", root / "files" / "cut.ckpt")
    mixed = root / "files" / "mixed"
    shutil.copytree(image_folder / "val", mixed)
    Image.new("L", (32, 32)).save(mixed / "9" / "odd.png")
    shutil.copytree(finished, root / "run", symlinks=True)  # a refused fit may have tested whether it can write
    return {"folder": image_folder, "nothing": root / "nothing", **{path.name: path for path in root.iterdir()}}


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, in which a test notices any file that a command writes."""
    for name in ("IMAGENET_TRAIN", "IMAGENET_VAL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path

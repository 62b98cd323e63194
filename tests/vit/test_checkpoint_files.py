"""Files that are not checkpoints, and how the error describes them."""

import re
from pathlib import Path

import pytest
import torch

from sinkablate.errors import UserError
from sinkablate.vit.checkpoint_files import read_checkpoint


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"hello, world\n", "truncated or not a checkpoint"),
        (b"\x80\x02garbage", "truncated or not a checkpoint"),
        (b"", "the file is empty; copy or download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS in place of the file"),
        (None, "no such file"),
    ],
)
@pytest.mark.parametrize("suffix", ["safetensors", "pt", "ckpt"])
def test_files_that_are_not_checkpoints_are_refused_and_named(
    tmp_path: Path, content: bytes | None, says: str, suffix: str
) -> None:
    path = tmp_path / f"x.{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(f"checkpoint={path}: {says}")):
        read_checkpoint(str(path))


def test_the_refusal_of_python_objects_does_not_suggest_to_run_them(tmp_path: Path) -> None:
    torch.save({"state_dict": Path("x")}, path := tmp_path / "objects.pt")
    with pytest.raises(
        UserError, match=r"contains Python objects \(pathlib.PosixPath\), .*save its state dict alone"
    ) as refusal:
        read_checkpoint(str(path))
    (text := tmp_path / "text.pt").write_text("hello, world\n")
    with pytest.raises(UserError) as other:
        read_checkpoint(str(text))
    assert "weights_only" not in f"{refusal.value} {other.value}"


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(2)], torch.zeros(2)], ids=repr)
def test_a_file_without_a_state_dict_is_refused_and_named(tmp_path: Path, content: object) -> None:
    torch.save(content, path := tmp_path / "x.pt")
    with pytest.raises(UserError, match=re.escape(f"{path}: contains no state dict")):
        read_checkpoint(str(path))

"""Checkpoints are copied into memory that is reused, and their files do not depend on how they were copied.

`Staging(["cpu"])` treats tensors on the CPU as those on a GPU, except that streams and pinned memory do nothing there.
On a machine with a GPU, `pytest tests/run/test_staging.py` runs the same tests on it, and those that need one.
"""

import errno
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from sinkablate.errors import UserError
from sinkablate.run import staging as staging_module
from sinkablate.run.checkpoint_io import AtomicCheckpointIO
from sinkablate.run.staging import Staging

on_gpu = pytest.mark.gpu
on_each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=on_gpu)])


def state(device: str) -> dict[str, Any]:
    """Tensors of every kind that a checkpoint may hold: strides, types, scalars, and two names for one tensor."""
    weight = torch.arange(24.0).view(2, 3, 4)
    tensors = {
        "state_dict": {"weight": weight, "same": weight, "transposed": weight.mT, "expanded": torch.ones(1).expand(3)},
        "optimizer_states": [{"step": torch.tensor(3.0), "exp_avg": weight.clone(), "half": weight.bfloat16()}],
        "images": torch.arange(96.0).view(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "empty": torch.empty(0),
        "ranks": (torch.arange(5, dtype=torch.uint8), {"step": 7, "name": "a"}),
    }
    return apply_to_collection(tensors, Tensor, lambda tensor: tensor.to(device))


def tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors(item)


def content(checkpoint: Any) -> bytes:
    file = io.BytesIO()
    torch.save(checkpoint, file)
    return file.getvalue()


@on_each_device
def test_staged_copies_are_saved_as_the_same_bytes_as_clones(device: str) -> None:
    cloned, _ = Staging().copy(state("cpu"))
    staged, wait = Staging([device]).copy(state(device))
    wait()
    assert content(staged) == content(cloned)


@on_each_device
def test_the_next_copy_reuses_the_memory_and_allocates_only_what_is_new(device: str) -> None:
    staging = Staging([device])
    first, wait = staging.copy(state(device))
    wait()
    before = {tensor.data_ptr() for tensor in tensors(first) if tensor.numel()}
    larger = state(device) | {"ema": torch.zeros(7, device=device)}
    for tensor in tensors(larger["optimizer_states"]):
        tensor.add_(1)
    second, wait = staging.copy(larger)
    wait()
    assert all(torch.equal(copy, tensor.cpu()) for copy, tensor in zip(tensors(second), tensors(larger), strict=True))
    after = {tensor.data_ptr() for tensor in tensors(second) if tensor.numel()}
    assert before < after
    assert after - before == {second["ema"].data_ptr()}


@on_each_device
def test_a_copy_made_in_inference_mode_can_be_overwritten_outside_of_it(device: str) -> None:
    staging = Staging([device])
    with torch.inference_mode():
        staging.copy({"weight": torch.zeros(3, device=device)})
    copied, wait = staging.copy({"weight": torch.ones(3, device=device)})
    wait()
    assert torch.equal(copied["weight"], torch.ones(3))


@pytest.mark.parametrize(
    ("device", "staged"), [("cpu", ["cpu"]), ("cpu", []), pytest.param("cuda", ["cuda"], marks=on_gpu)]
)
def test_changes_after_the_save_do_not_reach_the_file(device: str, staged: list[str], tmp_path: Path) -> None:
    checkpoint_io = AtomicCheckpointIO(staging=Staging(staged))
    weight = torch.zeros(3, device=device)
    for step in (1, 2):
        weight.fill_(step)
        checkpoint_io.save_checkpoint({"weight": weight}, tmp_path / f"{step}.ckpt")
        weight.fill_(-1)
    checkpoint_io.teardown()
    for step in (1, 2):
        saved = torch.load(tmp_path / f"{step}.ckpt", weights_only=True)
        assert torch.equal(saved["weight"], torch.full((3,), float(step)))


@on_gpu
@pytest.mark.parametrize("fits", [True, False], ids=["cloned on the GPU", "no memory for clones"])
def test_the_host_does_not_wait_for_the_gpu(fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU is busy for seconds when the checkpoint is saved, and the weights change while it still is."""
    monkeypatch.setattr(staging_module, "_fits", lambda *_: fits)
    checkpoint_io = AtomicCheckpointIO()
    weight = torch.zeros(1 << 20, device="cuda")
    checkpoint_io.save_checkpoint({"weight": weight}, tmp_path / "0.ckpt")  # allocates the memory, which may wait
    checkpoint_io.wait()
    torch.cuda.synchronize()
    torch.cuda._sleep(5_000_000_000)
    weight.fill_(1)
    checkpoint_io.save_checkpoint({"weight": weight}, tmp_path / "1.ckpt")
    weight.fill_(2)
    assert not torch.cuda.current_stream().query()
    checkpoint_io.teardown()
    saved = torch.load(tmp_path / "1.ckpt", weights_only=True)["weight"]
    assert saved.device.type == "cpu"
    assert torch.equal(saved, torch.ones(1 << 20))


def test_a_checkpoint_that_cannot_be_written_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint_io = AtomicCheckpointIO(staging=Staging(["cpu"]))
    checkpoint_io.save_checkpoint({"weight": torch.ones(3)}, tmp_path / "1.ckpt")
    checkpoint_io.wait()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        checkpoint_io.save_checkpoint({"weight": torch.zeros(3)}, tmp_path / "2.ckpt")
        with pytest.raises(UserError, match=r"2\.ckpt cannot be written \(No space left on device\)"):
            checkpoint_io.wait()
    assert (tmp_path / "last.ckpt").resolve() == (tmp_path / "1.ckpt").resolve()
    assert torch.equal(torch.load(tmp_path / "last.ckpt", weights_only=True)["weight"], torch.ones(3))
    assert not (tmp_path / "2.ckpt").exists()

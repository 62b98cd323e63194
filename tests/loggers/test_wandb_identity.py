"""A run directory is one run of W&B, which is told each step once and whose troubles cost one line."""

import json
import os
import re
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import wandb
from running import CONFIGS, Outcome, metrics, quick_fit, run
from wandb.proto import wandb_internal_pb2

from sinkablate.callbacks.preemption import Preemption
from sinkablate.config import WandbConfig
from sinkablate.loggers.panels import panel
from sinkablate.loggers.wandb import sync_command, wandb_logger, wandb_mode
from sinkablate.loggers.wandb_record import WandbRecord

OFFLINE = ("--wandb.mode=offline", "--trainer.max_epochs=2", "--trainer.limit_train_batches=3")


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A user without an account or settings; what the client has read of the environment is forgotten."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    wandb.teardown()
    yield
    wandb.teardown()


def fit(run_dir: Path, *args: str) -> Outcome:
    return run(*quick_fit(run_dir, *OFFLINE, *args, configs=[CONFIGS / "gate_reg.yaml"]))


def records(content: bytes, block: int = 32768) -> Iterator[bytes]:
    """Yield the records of a file in the log format of LevelDB: pieces of records in blocks, each behind a header."""
    at, pieces = 7, b""  # behind the name of the format
    while at + 7 <= len(content):
        if block - at % block < 7:  # no room for a header: the block ends
            at += block - at % block
            continue
        _, size, kind = struct.unpack("<IHB", content[at : at + 7])
        pieces += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield pieces
            pieces = b""


def told(run_dir: Path) -> list[tuple[str, list[tuple[int, str]]]]:
    """Id and (step, key) of every value, of each offline run of a directory, from the client's own files."""
    found = []
    for path in sorted((run_dir / "wandb").glob("offline-run-*/*.wandb")):
        values, run_id = [], ""
        for data in records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            run_id = record.run.run_id or run_id
            row = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
            values += [(int(row["trainer/global_step"]), key) for key in row if "trainer/global_step" in row]
        found.append((run_id, values))
    return found


def stored(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir / "wandb.json").read_text())
    return found


def test_a_resumed_run_is_the_same_run_and_logs_no_step_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = tmp_path / "run"

    def die(_self: Any, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == 5:
            raise RuntimeError("died")

    monkeypatch.setattr(Preemption, "on_before_backward", die)
    with pytest.raises(RuntimeError, match="died"):
        fit(run_dir, "--diagnostics.every_n_steps=1")
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(tmp_path))
    fit(run_dir, "--diagnostics.every_n_steps=1", "--ckpt_path=auto").succeeded()
    (first, before), (second, after) = told(run_dir)
    assert first == second == stored(run_dir)["id"]
    assert re.fullmatch(r"vit_mini-gate_reg-s0-[0-9a-f]{8}", first)
    assert max(step for step, _ in before) == 5
    shown = Counter((step, key) for step, key in before + after if "/" in key and not key.startswith("trainer/"))
    assert set(shown.values()) == {1}, [value for value, count in shown.items() if count > 1]
    local = {(int(row["step"]), key) for row in metrics(run_dir) for key, value in row.items() if value and "/" in key}
    speed = {(step, key) for step, key in shown if key.startswith(("throughput/", "tables/"))}
    assert {key.split(".")[0] for _, key in speed} == {"throughput/images_per_second", "tables/heads"}
    assert set(shown) - speed == {(step, panel(key)) for step, key in local}


def test_another_start_is_another_run_of_wandb(tmp_path: Path) -> None:
    short = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--diagnostics.every_n_steps=0")
    run_dir = tmp_path / "run"
    fit(run_dir, *short, "--sweep=pairs").succeeded()
    assert re.fullmatch(r"pairs-[0-9a-f]{12}-[0-9a-f]{8}", stored(run_dir)["id"])
    assert [run_id for run_id, _ in told(run_dir)] == [stored(run_dir)["id"]]
    fit(run_dir, *short, "--overwrite=true").succeeded()
    assert re.fullmatch(r"vit_mini-gate_reg-s0-[0-9a-f]{8}", stored(run_dir)["id"])


def test_runs_of_one_name_in_different_directories_are_different(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert WandbRecord(tmp_path / "a", "name").id != WandbRecord(tmp_path / "b", "name").id


def test_a_record_notes_each_group_of_metrics_once(tmp_path: Path) -> None:
    first = WandbRecord(tmp_path, "a name/with: much " + "x" * 200)
    assert re.fullmatch(r"a_name_with_much_x+-[0-9a-f]{8}", first.id)
    assert len(first.id) < 100
    assert first.is_new({"train/loss", "lr", "epoch"}, 3)
    assert first.is_new({"val/acc1", "epoch"}, 3)
    again = WandbRecord(tmp_path, "another name")
    assert again.id == first.id
    assert not again.is_new({"lr", "train/loss", "epoch"}, 3)
    assert not again.is_new({"val/acc1"}, 2)
    assert again.is_new({"val/acc1"}, 4)
    other = WandbRecord(tmp_path, "another name", given="mine")
    assert (other.id, other.is_new({"val/acc1"}, 1)) == ("mine", True), "another run has been told nothing"
    (tmp_path / "wandb.json").write_text("[damaged")
    assert WandbRecord(tmp_path, "name").id.startswith("name-")


def test_the_id_of_an_agent_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened() -> str:
        logger = wandb_logger(WandbConfig(mode="offline", id="mine"), str(tmp_path), "name", (), "pairs-0123")
        assert logger is not None
        return logger._make_record().id

    assert opened() == "mine"
    monkeypatch.setenv("WANDB_RUN_ID", "agents")
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    assert opened() == "agents"
    assert WandbRecord(tmp_path, "name").id == "agents", "that run goes on wherever it is resumed"


KEY = "0" * 40


@pytest.mark.parametrize(
    ("env", "mode", "said"),
    [
        ({}, "offline", ""),
        ({"WANDB_API_KEY": KEY}, "online", ""),
        ({"WANDB_API_KEY": "short"}, "offline", "WANDB_API_KEY invalid: API key must have 40+ characters, has 5"),
        ({"WANDB_API_KEY": "a" * 20 + " " + "a" * 20}, "offline", "API key may only contain the letters"),
        ({"WANDB_API_KEY": f"{KEY}\n"}, "disabled", "API key cannot start or end with whitespace"),
        ({"WANDB_API_KEY": ""}, "offline", ""),
        ({"WANDB_MODE": ""}, "offline", ""),
        ({"WANDB_MODE": " ", "WANDB_API_KEY": KEY}, "online", ""),
        ({"WANDB_MODE": "dryrun"}, "offline", ""),
        ({"WANDB_MODE": "bogus"}, "disabled", "WANDB_MODE: Input should be 'online', 'offline'"),
        ({"WANDB_DISABLED": "true"}, "disabled", ""),
        ({"WANDB_DISABLED": "false"}, "offline", ""),
        ({"WANDB_BASE_URL": "bogus"}, "disabled", "WANDB_BASE_URL: Input should be a valid URL"),
        (
            {"WANDB_BASE_URL": "http://", "WANDB_API_KEY": KEY},
            "disabled",
            "WANDB_BASE_URL: Input should be a valid URL",
        ),
        ({"WANDB_INIT_TIMEOUT": "soon"}, "disabled", "WANDB_INIT_TIMEOUT: Input should be a valid number"),
    ],
    ids=str,
)
def test_what_is_wrong_in_the_environment_costs_one_line(
    env: dict[str, str], mode: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert wandb_mode(WandbConfig()) == mode
    lines = capsys.readouterr().err.splitlines()
    assert (len(lines), said in "".join(lines)) == (int(bool(said)), True), lines


def test_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "a/b")
    done = fit(
        tmp_path / "run",
        "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=1",
        "--wandb.mode=auto",
        "--diagnostics.every_n_steps=0",
    ).succeeded()
    assert (tmp_path / "run" / "DONE").exists()
    assert [line for line in done.err.splitlines() if line.startswith("warning: ")] == [
        "warning: W&B: Run ID cannot contain the characters: :;,#?/'; training continues without it, the local record "
        "is complete"
    ]


def test_the_printed_command_is_one_that_a_shell_takes() -> None:
    assert sync_command("runs/a-s0") == "wandb sync runs/a-s0/wandb/offline-run-*"
    assert sync_command("my runs/it's $x") == """wandb sync 'my runs/it'"'"'s $x'/wandb/offline-run-*"""

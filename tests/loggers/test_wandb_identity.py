"""A run directory is one run in W&B, which receives every step once; a problem with W&B causes one line of output."""

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
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A user without an account or settings; the client discards what it has read from the environment."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    wandb.teardown()
    yield
    wandb.teardown()


def fit(run_dir: Path, *args: str) -> Outcome:
    """Run a fit of six steps that logs to W&B offline."""
    return run(*quick_fit(run_dir, *OFFLINE, *args, configs=[CONFIGS / "gate_reg.yaml"]))


def records(content: bytes, block: int = 32768) -> Iterator[bytes]:
    """Yield the records of a file in the log format of LevelDB: blocks of pieces of records, each with a header."""
    position, pieces = 7, b""  # after the name of the format
    while position + 7 <= len(content):
        if block - position % block < 7:  # no space for a header: the block ends
            position += block - position % block
            continue
        _, size, kind = struct.unpack("<IHB", content[position : position + 7])
        pieces += content[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # a complete record, or its last piece
            yield pieces
            pieces = b""


def logged_values(run_dir: Path) -> list[tuple[str, list[tuple[int, str]]]]:
    """ID of each offline run of a directory, and (step, key) of each of its values, from the files of the client."""
    offline_runs = []
    for path in sorted((run_dir / "wandb").glob("offline-run-*/*.wandb")):
        values, run_id = [], ""
        for data in records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            run_id = record.run.run_id or run_id
            row = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
            values += [(int(row["trainer/global_step"]), key) for key in row if "trainer/global_step" in row]
        offline_runs.append((run_id, values))
    return offline_runs


def stored(run_dir: Path) -> dict[str, Any]:
    """Content of `wandb.json`."""
    content: dict[str, Any] = json.loads((run_dir / "wandb.json").read_text())
    return content


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
    (first, before), (second, after) = logged_values(run_dir)
    assert first == second == stored(run_dir)["id"]
    assert re.fullmatch(r"vit_mini-gate_reg-s0-[0-9a-f]{8}", first)
    assert max(step for step, _ in before) == 5
    counts = Counter((step, key) for step, key in before + after if "/" in key and not key.startswith("trainer/"))
    assert set(counts.values()) == {1}, [value for value, count in counts.items() if count > 1]
    local = {(int(row["step"]), key) for row in metrics(run_dir) for key, value in row.items() if value and "/" in key}
    wandb_only = {(step, key) for step, key in counts if key.startswith(("throughput/", "tables/"))}
    assert {key.split(".")[0] for _, key in wandb_only} == {"throughput/images_per_second", "tables/heads"}
    assert set(counts) - wandb_only == {(step, panel(key)) for step, key in local}


def test_a_run_that_starts_from_scratch_is_a_new_run_in_wandb(tmp_path: Path) -> None:
    short = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--diagnostics.every_n_steps=0")
    run_dir = tmp_path / "run"
    fit(run_dir, *short, "--sweep=pairs").succeeded()
    assert re.fullmatch(r"pairs-[0-9a-f]{12}-[0-9a-f]{8}", stored(run_dir)["id"])
    assert [run_id for run_id, _ in logged_values(run_dir)] == [stored(run_dir)["id"]]
    fit(run_dir, *short, "--overwrite=true").succeeded()
    assert re.fullmatch(r"vit_mini-gate_reg-s0-[0-9a-f]{8}", stored(run_dir)["id"])


def test_runs_with_the_same_name_in_different_directories_are_distinct(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert WandbRecord(tmp_path / "a", "name").id != WandbRecord(tmp_path / "b", "name").id


def test_a_record_accepts_each_group_of_metrics_once(tmp_path: Path) -> None:
    first = WandbRecord(tmp_path, "a name/with: much " + "x" * 200)
    assert re.fullmatch(r"a_name_with_much_x+-[0-9a-f]{8}", first.id)
    assert len(first.id) < 100
    assert first.is_new({"train/loss", "lr", "epoch"}, 3)
    assert first.is_new({"val/acc1", "epoch"}, 3)
    reopened = WandbRecord(tmp_path, "another name")
    assert reopened.id == first.id
    assert not reopened.is_new({"lr", "train/loss", "epoch"}, 3)
    assert not reopened.is_new({"val/acc1"}, 2)
    assert reopened.is_new({"val/acc1"}, 4)
    other = WandbRecord(tmp_path, "another name", given="mine")
    assert (other.id, other.is_new({"val/acc1"}, 1)) == ("mine", True), "another run has received nothing"
    (tmp_path / "wandb.json").write_text("[damaged")
    assert WandbRecord(tmp_path, "name").id.startswith("name-")


def test_the_id_of_an_agent_takes_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def logger_id() -> str:
        logger = wandb_logger(WandbConfig(mode="offline", id="mine"), str(tmp_path), "name", (), "pairs-0123")
        assert logger is not None
        return logger._make_record().id

    assert logger_id() == "mine"
    monkeypatch.setenv("WANDB_RUN_ID", "agents")
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    assert logger_id() == "agents"
    assert WandbRecord(tmp_path, "name").id == "agents", "a resumed run continues the same run in W&B"


KEY = "0" * 40


@pytest.mark.parametrize(
    ("env", "mode", "message"),
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
def test_an_invalid_environment_variable_causes_one_line(
    env: dict[str, str], mode: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert wandb_mode(WandbConfig()) == mode
    lines = capsys.readouterr().err.splitlines()
    assert (len(lines), message in "".join(lines)) == (int(bool(message)), True), lines


def test_training_continues_when_wandb_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "a/b")
    outcome = fit(
        tmp_path / "run",
        "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=1",
        "--wandb.mode=auto",
        "--diagnostics.every_n_steps=0",
    ).succeeded()
    assert (tmp_path / "run" / "DONE").exists()
    assert [line for line in outcome.err.splitlines() if line.startswith("warning: ")] == [
        "warning: W&B: Run ID cannot contain the characters: :;,#?/'; training continues without it, the local record "
        "is complete"
    ]


def test_the_printed_command_is_quoted_for_the_shell() -> None:
    assert sync_command("runs/a-s0") == "wandb sync runs/a-s0/wandb/offline-run-*"
    assert sync_command("my runs/it's $x") == """wandb sync 'my runs/it'"'"'s $x'/wandb/offline-run-*"""

"""W&B sweeps with the real client: `wandb sweep`, `wandb agent`, and `wandb sync` of the offline runs of a cell."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import CONFIGS, LIMIT, QUICK, ROOT, forked, metrics
from wandb_server import bucket, entries, stub

from sinkablate.sweep.grid import read_sweep
from sinkablate.sweep.state import State, state_of

pytestmark = pytest.mark.heavy

LONG = ("--trainer.limit_train_batches=40", "--checkpoint.every_n_train_steps=5")
SLOW = ("--trainer.limit_train_batches=600", "--checkpoint.every_n_train_steps=5")


def sweep_file(folder: Path, *args: str, gates: tuple[str, ...] = ("none", "headwise")) -> Path:
    """Write a sweep over gates with one seed, for an agent in the same directory."""
    quick = [word for word in QUICK if not word.startswith("--wandb")]
    command = [
        "${env}",
        sys.executable,
        "-m",
        "sinkablate",
        "fit",
        "--config",
        str(CONFIGS / "baseline.yaml"),
        *quick,
        *args,
        "--sweep",
        "pairs",
        "--ckpt_path",
        "auto",
        "${args}",
    ]
    path = folder / "pairs.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "program": "sinkablate",
                "name": "pairs",
                "project": "sinks",
                "method": "grid",
                "command": command,
                "parameters": {
                    "model.backbone.attention.gate": {"values": list(gates)},
                    "seed_everything": {"value": 3},
                },
            }
        )
    )
    return path


def environment(url: str, folder: Path) -> dict[str, str]:
    """The environment of a user who has a key for a server."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    return clean | {
        "WANDB_BASE_URL": url,
        "WANDB_API_KEY": "0" * 40,
        "HOME": str(folder),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "WANDB_INIT_TIMEOUT": "10",
        "WANDB_FINISH_TIMEOUT": "10",
    }


def wandb(*args: str, env: dict[str, str], cwd: Path) -> "subprocess.Popen[str]":
    """Start a command of W&B."""
    return subprocess.Popen(
        [sys.executable, "-m", "wandb", *args],
        env=env,
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def register(path: Path, env: dict[str, str]) -> str:
    """Register a sweep with `wandb sweep`; returns its ID."""
    process = wandb("sweep", str(path), env=env, cwd=path.parent)
    output = process.communicate(timeout=LIMIT)[0]
    match = re.search(r"wandb agent (\S+)", re.sub(r"\x1b\[[0-9;]*m", "", output))
    assert match, output
    return match.group(1)


def test_an_agent_trains_every_cell_in_its_own_directory(tmp_path: Path) -> None:
    path, log = sweep_file(tmp_path), tmp_path / "log.jsonl"
    with stub(log) as (url, _):
        env = environment(url, tmp_path)
        output = wandb("agent", "--forward-signals", register(path, env), env=env, cwd=tmp_path).communicate(
            timeout=LIMIT
        )[0]
    cells = read_sweep(path).cells
    for cell in cells:
        run_dir = tmp_path / "runs" / "pairs" / cell.id
        assert state_of(run_dir) is State.DONE, output
        assert len(metrics(run_dir)) == 3
    runs = [entry["vars"] for entry in entries(log) if entry.get("op") == "UpsertBucket"]
    names = {run["displayName"] for run in runs if run.get("displayName")}
    assert names == {"vit_mini-gate=none-s3", "vit_mini-gate=headwise-s3"}
    assert {run["groupName"] for run in runs if run.get("groupName")} == {"pairs"}
    assert any("gate:headwise" in run.get("tags") or () for run in runs if run.get("tags"))
    created = [entry["vars"]["input"] for entry in entries(log) if entry.get("op") == "CreateArtifact"]
    results = {artifact["runName"] for artifact in created if artifact["artifactTypeName"] == "results"}
    assert results == {run["name"] for run in runs}
    unknown = {entry["op"] for entry in entries(log) if entry.get("known") is False}
    assert unknown == {"ArtifactType", "CreateArtifact"}  # the test server stores no artifacts


def test_a_signal_to_the_agent_preempts_the_cell_which_can_be_resumed(tmp_path: Path) -> None:
    path, log = sweep_file(tmp_path, *SLOW, gates=("none",)), tmp_path / "log.jsonl"
    [cell] = read_sweep(path).cells
    run_dir = tmp_path / "runs" / "pairs" / cell.id
    with stub(log) as (url, _):
        env = environment(url, tmp_path)
        agent = wandb("agent", "--forward-signals", register(path, env), env=env, cwd=tmp_path)
        end = time.monotonic() + LIMIT
        while not list(run_dir.glob("checkpoints/*.ckpt")):
            assert agent.poll() is None, agent.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.05)
        agent.send_signal(signal.SIGTERM)
        agent.communicate(timeout=LIMIT)
    end = time.monotonic() + LIMIT
    while state_of(run_dir) is State.RUNNING and time.monotonic() < end:
        time.sleep(0.1)
    assert state_of(run_dir) is State.PREEMPTED
    assert "SIGTERM" in (run_dir / "PREEMPTED").read_text()
    forked("sweep", "run", path, "--out", tmp_path / "runs" / "pairs", WANDB_MODE="offline").succeeded()
    assert state_of(run_dir) is State.DONE
    assert [int(row["step"]) for row in metrics(run_dir)] == list(range(601))


def test_offline_runs_of_one_cell_are_synced_into_one_run(tmp_path: Path) -> None:
    path, log = sweep_file(tmp_path, *LONG, gates=("headwise",)), tmp_path / "log.jsonl"
    [cell] = read_sweep(path).cells
    root = tmp_path / "cells"
    command = [sys.executable, "-m", "sinkablate", "sweep", "run", str(path), "--out", str(root), "--jobs", "1"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    env = clean | {"OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL) as runner:
        while not list(root.glob("*/checkpoints/*.ckpt")) and runner.poll() is None:
            time.sleep(0.02)
        runner.send_signal(signal.SIGINT)
    forked("sweep", "run", path, "--out", root, HOME=str(tmp_path)).succeeded()
    records = sorted((root / cell.id / "wandb").glob("offline-run-*"))
    assert len(records) == 2
    with stub(log) as (url, _):
        output = wandb("sync", *map(str, records), env=environment(url, tmp_path), cwd=tmp_path).communicate(
            timeout=LIMIT
        )[0]
    names = {entry["vars"].get("name") for entry in entries(log) if entry.get("op") == "UpsertBucket"}
    run_id = json.loads((root / cell.id / "wandb.json").read_text())["id"]
    assert (names, run_id.rpartition("-")[0]) == ({run_id}, f"pairs-{cell.id}"), output
    fields = bucket(log, run_id)
    assert (fields["groupName"], fields["displayName"], fields["project"]) == (
        "pairs",
        "vit_mini-gate=headwise-s3",
        "sinks",
    )
    assert "gate:headwise" in fields["tags"]
    config: dict[str, Any] = {
        key: item["value"] for key, item in json.loads(fields["config"]).items() if key != "_wandb"
    }
    assert config["model"]["backbone"]["attention"]["gate"] == "headwise"
    bodies = "".join(entry["body"] for entry in entries(log) if "body" in entry)
    steps = {int(step) for step in re.findall(r'trainer/global_step\\":(\d+)', bodies)}
    assert steps
    assert max(steps) <= 40

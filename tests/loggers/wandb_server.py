"""A local W&B server that records the requests of a test."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
STUB = Path(os.environ.get("SINKABLATE_SHARED") or ROOT.parent / "shared") / "tools" / "wandb_stub.py"


@contextmanager
def stub(log: Path, seconds: int = 1200) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Start the server; yields its address and process, which ends with the test."""
    if not STUB.is_file():
        pytest.skip("the W&B test server is missing (SINKABLATE_SHARED names its folder)")
    command = ["timeout", str(seconds), sys.executable, str(STUB), "0", str(log)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
    finally:
        process.terminate()
        process.wait()


def entries(log: Path) -> list[dict[str, Any]]:
    """Requests to the server, in order."""
    return [json.loads(line) for line in log.read_text().splitlines()]


def bucket(log: Path, name: str) -> dict[str, Any]:
    """The latest values of all fields that the client has sent for a run."""
    fields: dict[str, Any] = {}
    for entry in entries(log):
        if entry.get("op") == "UpsertBucket" and entry["vars"].get("name") == name:
            fields |= {key: value for key, value in entry["vars"].items() if value is not None}
    return fields

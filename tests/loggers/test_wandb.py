"""W&B through its real client: offline without a key, online with a local server; its failures never stop training."""

import json
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import CONFIGS, Outcome, forked, metrics, quick_fit
from wandb_server import bucket, entries, stub

pytestmark = pytest.mark.slow

NAME = "vit_mini-gate_reg-s3"
KEYS = {
    "train/loss",
    "lr",
    "val/acc1",
    "val/acc5",
    "val/loss",
    "sink/events",
    "sink/mass_max",
    "norm/cls_mean",
    "norm/patch_p99",
    "gate/open",
    "stability/grad_norm",
}
"""Metrics that dashboards depend on, with the same names in `metrics.csv`."""
WANDB_KEYS = {"trainer/global_step", "throughput/images_per_second", "tables/heads", "sink_adaptive/events"}
"""Metrics that are logged only to W&B."""


def fit(run_dir: Path, *args: str, **env: str) -> Outcome:
    """Run a fit of two steps that logs to W&B for a user whose home directory contains no key."""
    home = run_dir.parent / "home"
    home.mkdir(exist_ok=True)
    args = quick_fit(run_dir, "--wandb.mode=auto", "--seed_everything=3", *args, configs=[CONFIGS / "gate_reg.yaml"])
    return forked(*args, **env, HOME=str(home)).succeeded()


def online(run_dir: Path, url: str, *args: str, patience: int = 120) -> Outcome:
    """Run the same fit with a key for a server, which counts as unreachable after `patience` seconds."""
    return fit(
        run_dir,
        *args,
        WANDB_BASE_URL=url,
        WANDB_API_KEY="0" * 40,
        WANDB_INIT_TIMEOUT=str(patience),
        WANDB_FINISH_TIMEOUT=str(patience),
    )


def offline_runs(run_dir: Path) -> list[Path]:
    """Directories of the offline runs of W&B."""
    return list((run_dir / "wandb").glob("offline-run-*"))


def assert_complete(run_dir: Path) -> None:
    """Check that the local record is that of a finished run."""
    assert (run_dir / "DONE").exists()
    assert [row["step"] for row in metrics(run_dir)] == ["0", "1", "2"]
    assert metrics(run_dir)[0].keys() >= KEYS
    assert len(list((run_dir / "diagnostics").glob("*.parquet"))) == 2


def assert_contains_every_key(record: Path) -> None:
    """Check that the file of the client, a sequence of protocol buffers, contains every key."""
    [path] = record.glob(f"run-{NAME}-????????.wandb")
    content = path.read_bytes()
    assert {key for key in KEYS | WANDB_KEYS if key.encode() not in content} == set()


def test_a_run_without_a_key_is_offline_and_prints_one_line(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    outcome = fit(run_dir)
    assert_complete(run_dir)
    assert [line for line in outcome.out.splitlines() if "W&B" in line or "wandb:" in line] == [
        f"W&B: offline; upload later with: wandb sync {run_dir}/wandb/offline-run-*"
    ]
    assert "wandb" not in outcome.err.lower()
    [record] = offline_runs(run_dir)
    assert re.search(rf"-{NAME}-[0-9a-f]{{8}}$", record.name)
    assert_contains_every_key(record)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome, Path]:
    """An online run: its directory, its output, and the log of the requests to the server."""
    root = tmp_path_factory.mktemp("online")
    with stub(root / "log.jsonl") as (url, _):
        outcome = online(
            root / "run",
            url,
            "--wandb.tags=[mine]",
            "--wandb.group=pair",
            "--wandb.project=sinks",
            "--diagnostics.heatmap=true",
        )
    return root / "run", outcome, root / "log.jsonl"


def test_an_online_run_has_no_offline_record_and_no_warning(recorded: tuple[Path, Outcome, Path]) -> None:
    run_dir, outcome, _ = recorded
    assert_complete(run_dir)
    assert not offline_runs(run_dir)
    assert "W&B" not in outcome.out + outcome.err


def test_the_server_receives_name_group_and_mechanism(recorded: tuple[Path, Outcome, Path]) -> None:
    fields = bucket(recorded[2], json.loads((recorded[0] / "wandb.json").read_text())["id"])
    assert fields["displayName"] == NAME
    assert (fields["project"], fields["groupName"]) == ("sinks", "pair")
    assert set(fields["tags"]) == {"score:softmax", "sink:none", "gate:headwise", "registers:4", "pathway:none", "mine"}
    config = json.loads(fields["config"])
    resolved = yaml.safe_load((recorded[0] / "config.yaml").read_text())
    assert {name: item["value"] for name, item in config.items() if name != "_wandb"} == resolved
    assert resolved["model"]["backbone"]["attention"]["gate"] == "headwise"


def test_the_server_receives_metrics_and_the_heat_map(recorded: tuple[Path, Outcome, Path]) -> None:
    bodies = "".join(
        entry["body"] for entry in entries(recorded[2]) if "body" in entry
    )  # the log contains only the beginning of each body
    keys = set(re.findall(r'\\"([\w./]+)\\":', bodies))
    assert keys & KEYS
    assert all(key.count("/") == 1 for key in keys if key.startswith(("sink", "norm", "gate")))
    assert any("heads" in entry.get("put", "") for entry in entries(recorded[2]))
    assert_contains_every_key(next((recorded[0] / "wandb").glob("run-*")))


def test_the_server_receives_one_artifact_and_the_table_of_heads(recorded: tuple[Path, Outcome, Path]) -> None:
    run_id = json.loads((recorded[0] / "wandb.json").read_text())["id"]
    artifacts = [entry["vars"]["input"] for entry in entries(recorded[2]) if entry.get("op") == "CreateArtifact"]
    names = {artifact["artifactTypeName"]: artifact["artifactCollectionName"] for artifact in artifacts}
    assert len(artifacts) == 2
    assert names["results"] == f"{run_id}-results"
    assert "tablesheads" in names["run_table"], "W&B creates one for each logged table"
    [path] = (recorded[0] / "wandb").glob("run-*/files/media/table/tables/*.table.json")
    table = json.loads(path.read_text())
    assert len(table["data"]) == 16
    assert {"block", "head", "causal_frequency", "adaptive_nop"} <= set(table["columns"])


class Refusal(BaseHTTPRequestHandler):
    """A server that accepts no key."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.dumps({"errors": [{"message": "user is not logged in"}], "data": None}).encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


@contextmanager
def no_server() -> Iterator[str]:
    """An address on which no server listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


class Silence(BaseHTTPRequestHandler):
    """A server that never answers."""

    stopped = threading.Event()

    def do_POST(self) -> None:
        self.stopped.wait()

    do_GET = do_PUT = do_POST  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


class Server(ThreadingHTTPServer):
    """A server that stops without waiting for its open requests."""

    daemon_threads, block_on_close = True, False


@contextmanager
def refusing(handler: type[BaseHTTPRequestHandler] = Refusal) -> Iterator[str]:
    """The address of a server that refuses every request."""
    with Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            Silence.stopped.set()
            server.shutdown()


def silent() -> Any:
    """The address of a server that never answers."""
    return refusing(Silence)


@pytest.mark.heavy
@pytest.mark.parametrize("server", [no_server, refusing, silent])
def test_an_unusable_server_causes_one_warning(server: Callable[[], Any], tmp_path: Path) -> None:
    with server() as url:
        outcome = online(tmp_path / "run", url, patience=5)
    assert_complete(tmp_path / "run")
    [warning] = outcome.err.splitlines()
    assert "no online run" in warning
    assert len(offline_runs(tmp_path / "run")) == 1


@pytest.mark.heavy
def test_a_server_that_stops_during_the_run_causes_one_warning(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with stub(log) as (url, process):

        def stop_server() -> None:
            while process.poll() is None and not (log.exists() and "UpsertBucket" in log.read_text()):
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)

        watcher = threading.Thread(target=stop_server)
        watcher.start()
        outcome = online(tmp_path / "run", url, patience=5)
        watcher.join()
    assert_complete(tmp_path / "run")
    [warning] = outcome.err.splitlines()
    assert "the local record is complete" in warning

"""Uploads to the hub: the real client with a server on this machine, and refusals before anything is written."""

import base64
import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from running import Outcome, assert_refused, free_port, run

TOKEN = "hf_telltale"
HUB = "huggingface_hub.constants"


class Hub(BaseHTTPRequestHandler):
    """The part of the hub that an upload uses."""

    requests: list[tuple[str, str, str | None]]
    commits: list[dict[str, bytes]]
    refuses = ""
    """Path that is answered with 403."""

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        """Answer who is logged in."""
        self._answer({"name": "someone", "type": "user", "orgs": []})

    def do_POST(self) -> None:
        """Create a repository, check a model card, choose how files are sent, or take a commit."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.endswith("/create"):
            host, port = self.server.server_address[:2]
            self._answer({"url": f"http://{host!s}:{port}/someone/model", "name": "someone/model"}, body.decode())
        elif self.path.endswith("/validate-yaml"):
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            paths = [file["path"] for file in json.loads(body)["files"]]
            files = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
            self._answer({"files": files})
        else:
            lines = [json.loads(line) for line in body.splitlines()]
            files = {line["value"]["path"]: line["value"]["content"] for line in lines if line["key"] == "file"}
            self.commits.append({path: base64.b64decode(content) for path, content in files.items()})
            self._answer({"commitUrl": "http://127.0.0.1/someone/model/commit/1", "commitOid": "1", "success": True})

    def _answer(self, content: dict[str, Any], body: str = "") -> None:
        self.requests.append((self.path, body, self.headers.get("Authorization")))
        text = json.dumps(content).encode()
        self.send_response(403 if self.refuses and self.refuses in self.path else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub on this machine, and a login there."""
    handler = type("Handler", (Hub,), {"requests": [], "commits": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(f"{HUB}.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield handler
    server.shutdown()
    server.server_close()


def push(finished: Path, out: Path, *words: str) -> Outcome:
    return run("export", "--run", finished, "--out", out, "--push_to_hub", "someone/model", *words)


@pytest.mark.parametrize("private", [False, True])
def test_the_three_files_are_uploaded(finished: Path, hub: type[Hub], private: bool, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    outcome = push(finished, tmp_path, *(["--private"] if private else [])).succeeded()
    assert re.search(r"^uploaded: http.*/someone/model$", outcome.out, re.MULTILINE)
    (sent,) = hub.commits
    names = ("README.md", "config.json", "model.safetensors")
    assert sent == {name: (tmp_path / name).read_bytes() for name in names}
    assert b'sa.create_model("hf-hub:someone/model")' in sent["README.md"]
    assert TOKEN.encode() not in b"".join(sent.values())
    (created,) = (json.loads(body) for path, body, _ in hub.requests if path.endswith("/create"))
    assert (created.get("private") is True or created.get("visibility") == "private") is private
    assert {token for _, _, token in hub.requests} == {f"Bearer {TOKEN}"}


def test_nothing_is_sent_unless_asked(finished: Path, hub: type[Hub], tmp_path: Path) -> None:
    run("export", "--run", finished, "--out", tmp_path / "out").succeeded()
    assert hub.requests == []


def test_a_refused_upload_keeps_the_folder(finished: Path, hub: type[Hub], tmp_path: Path) -> None:
    hub.refuses = "/commit/"
    outcome = push(finished, tmp_path / "out")
    assert_refused(
        outcome, "push_to_hub=someone/model: not logged in, or without the right to write there", "is complete"
    )
    assert len(list((tmp_path / "out").iterdir())) == 3


@pytest.mark.parametrize(
    ("offline", "token", "says"),
    [
        (False, TOKEN, "the hub cannot be reached"),
        (True, TOKEN, "HF_HUB_OFFLINE forbids the upload"),
        (False, None, "log in with `hf auth login`, or set HF_TOKEN"),
    ],
    ids=["unreachable", "offline", "no_login"],
)
def test_an_upload_that_cannot_succeed_is_refused_before_anything_is_written(
    finished: Path, offline: bool, token: str | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{HUB}.ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(f"{HUB}.HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(f"{HUB}.HF_TOKEN_PATH", str(tmp_path / "no_token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    outcome = push(finished, tmp_path / "out")
    assert_refused(outcome, "push_to_hub=someone/model", says)
    assert TOKEN not in outcome.err
    assert list(tmp_path.iterdir()) == []

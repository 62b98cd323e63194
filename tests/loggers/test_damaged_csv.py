"""A run continues a truncated or missing `metrics.csv`, and refuses a damaged one in one line."""

from pathlib import Path

import pytest

from sinkablate.errors import UserError
from sinkablate.loggers.csv import MetricsCsv


def resumed(root: Path, step: int) -> list[str]:
    """Continue the file from a step; returns its lines."""
    logger = MetricsCsv(str(root))
    logger.rewind(step)
    logger.log_metrics({"a": 9.0}, step)
    logger.finalize("success")
    return (root / "metrics.csv").read_text().splitlines()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("step,a\r\n0,1.0\r\n1,2.0\r\n", ["step,a", "0,1.0", "1,2.0", "2,9.0"]),
        ("step,a\r\n0,1.0\r\n1,2", ["step,a", "0,1.0", "2,9.0"]),
        ("step,a,b\r\n0,1.0,3.0\r\n1", ["step,a,b", "0,1.0,3.0", "2,9.0,"]),
        ("step,a\r\n0,1.0\r\n5,2.0\r\n", ["step,a", "0,1.0", "2,9.0"]),
        ("step,a", ["step,a", "2,9.0"]),
        ("", ["step,a", "2,9.0"]),
        (None, ["step,a", "2,9.0"]),
    ],
)
def test_a_truncated_row_is_dropped(before: str | None, after: list[str], tmp_path: Path) -> None:
    if before is not None:
        (tmp_path / "metrics.csv").write_bytes(before.encode())
    assert resumed(tmp_path, 2) == after


@pytest.mark.parametrize(
    "content",
    [b"step,a\n0,1.0\nnot,a row\n", b"a,b\n1,2\n", b"step,a\n\xff\xfe,1\n", b"step,a\n0,1.0,2.0\n", b"step,a\n,1.0\n"],
)
def test_a_damaged_file_is_named_and_kept(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"metrics\.csv.*move it away"):
        resumed(tmp_path, 2)
    assert path.read_bytes() == content


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to("gone")
    with pytest.raises(UserError, match=r"metrics\.csv cannot be written"):
        resumed(tmp_path / "run", 2)

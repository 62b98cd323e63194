"""Atomic writes: the old content or the new one, no leftovers, errors that name the file."""

import json
import os
from pathlib import Path

import pytest

from sinkablate.errors import UserError, first_line
from sinkablate.files.suggestions import did_you_mean, did_you_mean_or_list
from sinkablate.files.writing import as_stored, json_text, replacing, temporary_sibling, write_atomically, write_json


class Interrupted(BaseException):
    """Like a KeyboardInterrupt."""


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("no"), Interrupted()])
def test_a_failed_write_keeps_the_old_content_and_leaves_nothing_behind(error: BaseException, tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    target.write_text("old")

    def write() -> None:
        with replacing(target) as partial:
            partial.write_text("half of the n")
            raise error

    with pytest.raises(type(error)):
        write()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_an_error_names_the_file_and_ends_with_the_hint(tmp_path: Path) -> None:
    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"table.csv cannot be written: No space left on device; free some$"):
        write_atomically(tmp_path / "table.csv", full, "; free some")


@pytest.mark.parametrize("options", [{}, {"fsync": True}, {"concurrent": True}])
def test_a_link_is_replaced_and_its_target_is_left_alone(options: dict[str, bool], tmp_path: Path) -> None:
    (tmp_path / "other").write_text("of somebody else")
    (tmp_path / "link").symlink_to("other")
    with replacing(tmp_path / "link", **options) as partial:
        partial.write_text("new")
    assert (tmp_path / "link").read_text() == "new"
    assert (tmp_path / "other").read_text() == "of somebody else"


def test_a_folder_appears_complete_and_replaces_only_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with replacing(tmp_path / "set", folder=True) as partial:
        (partial / "a").write_text("1")
    assert os.listdir(tmp_path / "set") == ["a"]
    with pytest.raises(OSError), replacing(tmp_path / "set", folder=True) as partial:  # noqa: PT011
        (partial / "b").write_text("2")
    assert os.listdir(tmp_path / "set") == ["a"]
    assert os.listdir(tmp_path) == ["set"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    with temporary_sibling(tmp_path / "page") as partial:
        leftover = partial
    leftover.mkdir()
    (leftover / "half").touch()
    with temporary_sibling(tmp_path / "page") as partial:
        assert partial == leftover
        assert not partial.exists()


def test_json_has_null_for_what_it_does_not_know(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [float("nan"), (float("inf"), 1.5)], "a": "é"})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": "é", "b": [None, [None, 1.5]]}
    assert json_text({"a": float("nan")}, indent=None, separators=(",", ":")) == '{"a":null}'
    assert as_stored({"a": (1, 2)}) == {"a": [1, 2]}


def test_first_line_of_an_error() -> None:
    assert first_line(ValueError("\n a \n b")) == "a"
    assert first_line(ValueError()) == "ValueError"
    assert len(first_line(ValueError("x" * 999))) == 200


def test_suggestions() -> None:
    assert did_you_mean("gat", ["gate", "sink"]) == "; did you mean gate?"
    assert did_you_mean("zzz", ["gate", "sink"]) == ""
    assert did_you_mean_or_list("gate", ["gates", "gated", "rate"]) == "; did you mean gates or gated or rate?"
    assert did_you_mean_or_list("zzz", ["gate", "sink"]) == "; choose from gate, sink"
    assert did_you_mean_or_list("zzz", map(str, range(21))).endswith("18, 19, …")

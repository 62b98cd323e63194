"""Manifests of streams: impossible counts and damaged files are refused, and the message names the file."""

import dataclasses
from pathlib import Path

import pytest
from shard_sets import members, write_tar
from tar_sources import keys, source_of

from sinkablate.errors import UserError

COUNTS = ["3.0", "2.5", "-1", "true", '"3"', "null", "[3]", "1e999", "NaN", "9" * 30, "4000"]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(
    "form", ['{"shards": {"set.tar": %s}}', '{"splits": {"train": {"filenames": ["set.tar"], "shard_lengths": [%s]}}}']
)
def test_an_impossible_count_is_refused_and_named(form: str, count: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "set.tar", members(0, 3))
    source = source_of(tmp_path, "stream", 3)
    name = "manifest.json" if form.startswith('{"shards"') else "_info.json"
    (tmp_path / "manifest.json").unlink()
    (tmp_path / name).write_text(form % count)
    with pytest.raises(UserError, match=rf"{name}: .*set.tar"):
        keys(source)
    (tmp_path / name).write_text(form % 3)
    assert len(keys(source)) == 3
    assert len(keys(dataclasses.replace(source, reader="indexed"))) == 3


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "3",
        '{"shards": 3}',
        '{"shards": [1]}',
        "{}",
        "[" * 100_000,
        '{"shards": {"set.tar": 3}, "classes": 4}',
    ],
)
def test_a_damaged_manifest_is_refused_and_named(content: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "set.tar", members(0, 3))
    source = source_of(tmp_path, "stream", 3)
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest.json"):
        keys(source)

"""The command `shards` on a real folder of images."""

import json
from pathlib import Path

import pytest
from running import assert_refused, run, tree


def test_shards_are_written_with_a_manifest(shards: Path) -> None:
    assert json.loads((shards / "manifest.json").read_text())["shards"] == {
        **{f"train-{n:04d}.tar": 10 for n in range(4)},
        **{f"val-{n:04d}.tar": 10 for n in range(2)},
    }
    assert {path.name for path in shards.glob("*.tar")} == {f"train-{n:04d}.tar" for n in range(4)} | {
        f"val-{n:04d}.tar" for n in range(2)
    }


@pytest.mark.parametrize(
    ("src", "args", "message"),
    [
        ("{images}", ["{shards}"], "{shards}: already exists and is not an empty directory"),
        ("{shards}/nothing", ["{new}"], "nothing: no such directory"),
        ("{shards}", ["{new}"], "neither IDX files nor one folder"),
        ("{images}", ["{shards}/manifest.json/new"], "cannot be written"),
        ("{images}", ["{new}", "--samples", "3"], "--samples"),
        ("{images}", ["{new}", "--samples_per_shard", "0"], "samples_per_shard"),
        ("{images}", ["{new}", "--train_per_class", "5"], "class 0 has only 4 images"),
        ("{images}", [], "DST"),
    ],
    ids=str,
)
def test_shards_refuses_invalid_input(
    src: str, args: list[str], message: str, shards: Path, image_folder: Path, tmp_path: Path
) -> None:
    paths = {"images": image_folder, "shards": shards, "new": tmp_path / "new"}
    before = tree(shards)
    outcome = run("shards", *(arg.format(**paths) for arg in (src, *args)))
    assert_refused(outcome, message.format(**paths))
    assert tree(shards) == before
    assert list(tmp_path.iterdir()) == []

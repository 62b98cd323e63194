"""`intervene` from Python."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from running import run
from torch import Tensor, nn

import sinkablate as sa


def test_intervene_returns_the_rows_of_the_command(finished: Path, tmp_path: Path) -> None:
    edits = ["mean_value", "donor_value", "redirect"]
    words = ("--heads", "1:0,3:2", "--edits", ",".join(edits), "--limit", "8", "--control_images", "2")
    run("intervene", "--run", finished, "--out", tmp_path / "out", *words).succeeded()
    trained = sa.load_run(finished)
    assert trained.loaded.probe_set is not None
    images, names, targets = trained.loaded.probe_set(8)
    effects = sa.intervene(trained.model, images, [(1, 0), (3, 2)], edits, names=names, targets=targets)
    for name, table in {"rows": effects.rows, "heads": effects.heads, "validation": effects.validation}.items():
        assert_frame_equal(table, pl.read_parquet(tmp_path / "out" / f"{name}.parquet"), check_exact=True)
    assert effects.rows.height == 8 * 2 * len(edits)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"heads": [(9, 0)]}, "outside the model's 3 blocks"),
        ({"edits": ["no_edit"]}, "no_edit"),
        ({"rule": "none"}, "rule=none"),
        ({"heads": [(0, 0)], "names": ["one"]}, "names: 1 given for 6 images"),
    ],
)
def test_interventions_that_cannot_be_made_are_refused(
    words: dict[str, Any], message: str, model: nn.Module, images: Tensor
) -> None:
    with pytest.raises(sa.UserError, match=message):
        sa.intervene(model, images, **words)

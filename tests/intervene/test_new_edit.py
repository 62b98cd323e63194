"""An edit registered outside the package is in every output of `intervene`, and in a report under its label."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from running import run

from sinkablate.errors import UserError
from sinkablate.intervene.edit import Edit
from sinkablate.intervene.edits import edit_named, option_names, register_edit, unregister_edit
from sinkablate.report.edits import edits
from sinkablate.report.runs import read_runs

HALF = Edit(
    name="half_value",
    title="sink value halved",
    method="scaling",
    build=lambda site: site.replace_value(site.value / 2),
)


@pytest.fixture
def _half() -> Iterator[None]:
    register_edit(HALF)
    yield
    unregister_edit(HALF.name)


@pytest.mark.usefixtures("_half")
def test_a_new_edit_appears_in_every_output_of_intervene(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("--heads", "1:0", "--limit", "2", "--control_images", "2", "--edits", "zero_value,half_value")
    done = run("intervene", "--run", finished, "--out", out, *words).succeeded()
    assert "sink value halved" in done.out
    rows = pl.read_parquet(out / "rows.parquet")
    assert rows["edit"].to_list() == ["zero_value", "half_value"] * 2
    assert rows["method"].to_list() == ["zero ablation", "scaling"] * 2
    zero, half = (rows.filter(edit=name)["head_change"].to_list() for name in ("zero_value", "half_value"))
    assert half == pytest.approx([change / 2 for change in zero], rel=1e-5)
    assert pl.read_parquet(out / "heads.parquet")["edit"].to_list() == ["zero_value", "half_value"]
    assert pl.read_parquet(out / "validation.parquet")["method"].to_list() == ["zero ablation", "scaling"]
    assert "half_value" in (out / "figures" / "edits_by_label.csv").read_text()


@pytest.mark.heavy
@pytest.mark.usefixtures("_half")
def test_a_new_edit_is_in_a_report_under_its_label(finished: Path, tmp_path: Path) -> None:
    words = ("--heads", "1:0", "--limit", "2", "--control_images", "2", "--edits", "zero_value,half_value")
    run("intervene", "--run", finished, "--out", tmp_path / "edits", *words).succeeded()
    run("report", finished, tmp_path / "edits", "--maps", "0", "--out", tmp_path / "out").succeeded()
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert '"half_value":"sink value halved (scaling)"' in page
    drawn = edits(read_runs([str(finished), str(tmp_path / "edits")])[0])
    assert drawn is not None
    (axis,) = drawn[0].axes
    assert [tick.get_text() for tick in axis.get_yticklabels()][-1] == HALF.label
    stored = pl.read_csv(tmp_path / "out" / "figures" / "edits.csv")
    assert stored["edit"].to_list() == ["zero_value", "half_value"]


@pytest.mark.usefixtures("_half")
def test_a_name_can_be_registered_only_once() -> None:
    assert option_names()[-1] == "half_value"
    with pytest.raises(UserError, match="edit half_value: an edit or group with this name already exists"):
        register_edit(HALF)
    with pytest.raises(UserError, match="edit register: "):
        register_edit(Edit("register", "", "", HALF.build))


def test_results_of_an_edit_that_is_not_registered_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="edit=half_value: not registered in this process; import the module that"):
        edit_named(HALF.name)

"""Wrong arguments of `fit` end in one line that names the key, file or shard; nothing is written or overwritten."""

from pathlib import Path

import pytest
from refused_fits import CASES, LATE
from running import assert_refused, fit, tree


@pytest.mark.parametrize("name", CASES)
def test_a_fit_is_refused_in_one_line_and_writes_nothing(name: str, places: dict[str, Path], here: Path) -> None:
    words, said = CASES[name]
    assert_refused(fit(here / "run", "--diagnostics.images=100", *words.format(**places).split()), *said)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("name", LATE)
def test_a_refused_fit_leaves_the_run_it_was_to_overwrite(name: str, places: dict[str, Path]) -> None:
    run_dir = places["run"]
    words, before = CASES[name][0].format(**places).split(), tree(run_dir)
    assert_refused(fit(run_dir, "--overwrite=true", "--diagnostics.images=100", *words))
    assert tree(run_dir) == before

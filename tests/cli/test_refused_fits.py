"""Wrong arguments of `fit` end in one line that names the key, file or shard; nothing is written or overwritten."""

from pathlib import Path

import pytest
from refused_fits import CASES, LATE
from running import assert_refused, fit, tree


@pytest.mark.parametrize("name", CASES)
def test_a_fit_is_refused_in_one_line_and_writes_nothing(name: str, paths: dict[str, Path], empty_folder: Path) -> None:
    args, phrases = CASES[name]
    assert_refused(fit(empty_folder / "run", "--diagnostics.images=100", *args.format(**paths).split()), *phrases)
    assert list(empty_folder.iterdir()) == []


@pytest.mark.parametrize("name", LATE)
def test_a_refused_fit_does_not_touch_the_run_it_should_overwrite(name: str, paths: dict[str, Path]) -> None:
    run_dir = paths["run"]
    args, before = CASES[name][0].format(**paths).split(), tree(run_dir)
    assert_refused(fit(run_dir, "--overwrite=true", "--diagnostics.images=100", *args))
    assert tree(run_dir) == before

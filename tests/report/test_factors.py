"""Factors of a report name configuration keys by their ending."""

from pathlib import Path

import pytest

from sinkablate.errors import UserError
from sinkablate.report.ablation import run_table
from sinkablate.report.run import Run


def run(seed: str, **config: str) -> Run:
    keys = {key.replace("__", "."): value for key, value in config.items()}
    return Run(name=f"run-{seed}", path=Path(), kind="run", variant="v", seed=seed, finished=True, config=keys)


def test_an_ending_of_several_keys_names_the_one_that_differs_between_the_runs() -> None:
    runs = [run(seed, attention__gate=gate, pathway__gate="none") for seed, gate in (("0", "none"), ("1", "headwise"))]
    assert run_table(runs, ["gate"])["gate"].to_list() == ["none", "headwise"]
    assert run_table(runs, ["pathway.gate"])["pathway.gate"].to_list() == ["none", "none"]


@pytest.mark.parametrize("others", [("none", "none"), ("none", "shared")])
def test_an_ending_that_stays_ambiguous_is_refused(others: tuple[str, str]) -> None:
    attention = ("none", "none") if others[0] == others[1] else ("none", "headwise")
    runs = [run(str(i), attention__gate=attention[i], pathway__gate=others[i]) for i in (0, 1)]
    with pytest.raises(UserError, match=r"gate does not name exactly one .* it could be attention.gate, pathway.gate"):
        run_table(runs, ["gate"])

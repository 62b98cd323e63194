"""The verdict of the mixed toy on one seed: a gate and registers each nearly halve the error, and serve the NOP."""

from typing import Any

import pytest
from running import CONFIGS, run, summary

ARMS = {
    "neither": (),
    "gate": ("--model.toy.attention", "{gate: headwise}"),
    "registers": ("--model.toy.registers", "4"),
}
QUICK = ("--data.batch_size", "64", "--trainer.max_epochs", "20", "--diagnostics.every_n_steps", "0")
"""1,000 steps with a quarter of the batch."""

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The summary of every arm at seed 1, a quarter of a minute each."""
    root = tmp_path_factory.mktemp("mixed")
    common = ("--seed_everything", "1", "--wandb.mode", "disabled", "--trainer.accelerator", "cpu")
    for arm, arguments in ARMS.items():
        run(
            "fit", "--config", CONFIGS / "toy" / "mixed.yaml", "--run_dir", root / arm, *common, *QUICK, *arguments
        ).succeeded()
    return {arm: summary(root / arm) for arm in ARMS}


@pytest.mark.parametrize("arm", ["gate", "registers"])
def test_a_place_to_do_nothing_nearly_halves_the_error(arm: str, results: dict[str, dict[str, Any]]) -> None:
    assert results[arm]["val/loss"] < 0.65 * results["neither"]["val/loss"]


@pytest.mark.parametrize("arm", ARMS)
def test_one_head_broadcasts(arm: str, results: dict[str, dict[str, Any]]) -> None:
    shares = [results[arm][f"toy/label_broadcast/head{head}"] for head in (0, 1)]
    assert max(shares) > 0.9
    assert min(shares) < 0.5


def test_the_other_head_rests_on_a_register(results: dict[str, dict[str, Any]]) -> None:
    registers = results["registers"]
    resting = max((0, 1), key=lambda head: registers[f"toy/sink_on_register/head{head}"])
    assert registers[f"toy/sink_on_register/head{resting}"] > 0.9
    assert registers[f"toy/attention_resting/head{resting}"] > 0.9
    assert registers[f"toy/attention_not_resting/head{resting}"] < 0.2
    assert registers[f"toy/value_ratio/head{resting}"] < 0.5

"""The predicted time of a run is that of its parts, and `plan --run` compares it with a run."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from running import CONFIGS, assert_refused, run, summary

from sinkablate.plan.planning import device_count

SMALL = ("--config", CONFIGS / "gate_reg.yaml", "--model.backbone.depth", "1", "--diagnostics.images", "2")
NOT_MEASURED = (*SMALL, "--diagnostics.every_n_steps", "0")


def plan(*args: str | Path) -> dict[str, Any]:
    """Result of `plan` for an H100, as JSON."""
    result: dict[str, Any] = json.loads(run("plan", *args, "--device", "h100", "--json").succeeded().out)
    return result


def test_the_time_of_a_run_is_that_of_its_parts() -> None:
    planned = plan(*SMALL, "--trainer.max_epochs", "2", "--diagnostics.every_n_steps", "100")
    predicted = planned["prediction"]
    parts = {name: predicted[name] for name in ("training_batch", "optimizer_step", "measurement")}
    for part in parts.values():
        terms = [part[f"{term}_seconds"] for term in ("arithmetic", "memory", "launches")]
        assert max(terms) * (1 - 1e-9) <= part["total_seconds"] <= sum(terms)
    assert planned["steps"] == 312
    assert predicted["training_seconds"] == pytest.approx(
        312 * (parts["training_batch"]["total_seconds"] + parts["optimizer_step"]["total_seconds"])
    )
    # 0, 100, 200, 300, 312; and 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256
    assert predicted["measurements"] == 21
    assert predicted["diagnostics_seconds"] == pytest.approx(21 * parts["measurement"]["total_seconds"])
    assert predicted["images_per_second"] == pytest.approx(312 * 64 / predicted["seconds"])
    # parameters, gradients and two moments are read, all but the gradients are written
    assert parts["optimizer_step"]["bytes"] == 7 * 4 * planned["trainable"]


def test_more_images_are_measured_in_more_time() -> None:
    few, many = (plan(*SMALL, "--diagnostics.images", count)["prediction"]["measurement"] for count in ("2", "4"))
    assert many["flops"] == pytest.approx(2 * few["flops"], rel=0.05)
    assert few["bytes"] < many["bytes"] < 2 * few["bytes"]


def test_the_rest_of_a_large_measurement_is_extrapolated(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--diagnostics.images", "12", "--diagnostics.batch_size", "8")
    counted = plan(*SMALL, *words)["prediction"]["measurement"]
    monkeypatch.setattr("sinkablate.plan.prediction.MOST_OPERATIONS", 1)
    extrapolated = plan(*SMALL, *words)["prediction"]["measurement"]
    assert extrapolated["flops"] == pytest.approx(counted["flops"], rel=0.05)
    assert extrapolated["operations"] == pytest.approx(6 * counted["operations"], rel=0.05)  # 12 batches instead of 2
    assert counted["synchronizations"] == 0


def test_devices_share_a_batch() -> None:
    one, four = (plan(*NOT_MEASURED, "--trainer.devices", count)["prediction"] for count in ("1", "4"))
    assert (one["devices"], four["devices"]) == (1, 4)
    assert four["training_batch"]["flops"] == pytest.approx(one["training_batch"]["flops"] / 4, rel=0.01)
    assert four["optimizer_step"] == one["optimizer_step"]


def test_half_precision_halves_the_traffic_of_a_batch() -> None:
    full, half = (
        plan(*NOT_MEASURED, "--trainer.precision", precision)["prediction"]["training_batch"]
        for precision in ("32-true", "bf16-mixed")
    )
    assert half["flops"] == full["flops"]
    assert half["bytes"] < 0.9 * full["bytes"]
    assert half["arithmetic_seconds"] < 0.2 * full["arithmetic_seconds"]


def test_an_average_of_the_weights_adds_to_the_optimizer_step() -> None:
    plain, averaged = plan(*NOT_MEASURED), plan(*NOT_MEASURED, "--model.ema.decay", "0.99")
    added = averaged["prediction"]["optimizer_step"]["bytes"] - plain["prediction"]["optimizer_step"]["bytes"]
    assert added == 3 * 4 * plain["parameters"]


@pytest.mark.parametrize(
    ("words", "steps", "batches"),
    [
        (("--trainer.limit_train_batches", "10"), 20, 20),
        (("--trainer.limit_train_batches", "0.5"), 156, 156),
        (("--trainer.max_steps", "7"), 7, 7),
        (("--trainer.accumulate_grad_batches", "5"), 64, 312),
        (("--trainer.accumulate_grad_batches", "5", "--trainer.max_steps", "33"), 33, 161),
        (("--trainer.max_epochs", "-1", "--trainer.max_steps", "30"), 30, 30),
    ],
    ids=lambda value: value[0].rpartition(".")[2] if isinstance(value, tuple) else None,
)
def test_the_length_of_a_run_is_that_of_fit(words: tuple[str, ...], steps: int, batches: int) -> None:
    planned = plan(*NOT_MEASURED, "--trainer.max_epochs", "2", *words)
    predicted = planned["prediction"]
    assert planned["steps"] == steps
    assert predicted["images_per_second"] * predicted["seconds"] == pytest.approx(batches * 64)


@pytest.mark.parametrize(
    ("devices", "count"), [("auto", 1), (3, 3), ("3", 3), ("0,2", 2), ("0,", 1), ([1, 2, 5], 3), (-1, 1), ("-1", 1)]
)
def test_the_number_of_devices(devices: int | str | list[int], count: int) -> None:
    assert device_count(devices) == count


def test_a_finished_run_is_compared_with_its_prediction(finished: Path) -> None:
    planned = json.loads(run("plan", "--run", finished, "--json").succeeded().out)
    predicted, measured = planned["prediction"], planned["measured"]
    assert predicted["device"] == measured["device"] == "cpu"
    assert planned["steps"] == summary(finished)["steps"]
    assert predicted["measurements"] == len(list((finished / "diagnostics").glob("step_*.parquet")))
    assert measured["images_per_second"] == summary(finished)["images_per_second"]
    ratio = measured["measured_over_predicted_seconds"]
    assert ratio == pytest.approx(predicted["images_per_second"] / measured["images_per_second"])

    text = run("plan", "--run", finished, "--device", "a100").succeeded().out
    assert "predicted for a100 (efficiency 0.45)" in text
    assert "measured time / predicted time" in text


@pytest.mark.parametrize("change", ["--trainer.devices=2", "--config=gate", "--model.backbone.registers=8"])
def test_a_changed_run_is_not_compared(finished: Path, change: str) -> None:
    assert_refused(
        run("plan", change, "--run", finished), "cannot be combined with --run", f"--config {finished / 'config.yaml'}"
    )


def test_a_run_that_has_not_finished_is_refused(finished: Path, tmp_path: Path) -> None:
    assert_refused(run("plan", "--run", tmp_path), f"run={tmp_path}: not the directory of a run")
    shutil.copy(finished / "config.yaml", tmp_path)
    assert_refused(run("plan", "--run", tmp_path), f"run={tmp_path}: has not finished")
    (tmp_path / "summary.json").write_text('{"images_per_second": null, "device": "cpu"}')
    assert_refused(run("plan", "--run", tmp_path), "its summary.json has no images_per_second, threads")


def test_a_run_of_someone_else_executes_nothing(finished: Path, tmp_path: Path) -> None:
    config = (finished / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(config.replace("plugins: null", "plugins: os.system"))
    assert_refused(run("plan", "--run", tmp_path), "would execute code: trainer.plugins", "--trust")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--device", "graphics"), "device=graphics: no such device; choose from a100, h100, h200, l40s, cpu"),
        (("--device", "h100", "--efficiency", "2"), "efficiency=2.0: must be greater than 0 and at most 1"),
        (("--trainer.max_epochs", "-1"), "trainer.max_epochs=-1 needs trainer.max_steps"),
        (("--trainer.limit_train_batches", "0"), "nothing to train: 0 batches an epoch"),
    ],
)
def test_invalid_arguments_are_refused(words: tuple[str, ...], message: str) -> None:
    assert_refused(run("plan", *NOT_MEASURED, *words), message)


def test_without_the_rates_of_a_device_only_its_time_is_unknown() -> None:
    text = run("plan", *NOT_MEASURED, "--trainer.accelerator", "gpu").succeeded().out
    assert "time: unknown; set --device" in text

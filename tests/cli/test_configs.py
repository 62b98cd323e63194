"""Every shipped config, read by the real command line."""

import json
import math
from pathlib import Path

import pytest
import yaml
from running import CONFIGS, column, fit, heads, metrics, run

VARIANTS = sorted(CONFIGS.glob("*.yaml"))
STACKED = sorted([*CONFIGS.glob("model/*.yaml"), *CONFIGS.glob("recipe/*.yaml")])
"""Configs that are used after a variant and a data config."""
DATA = sorted(CONFIGS.glob("data/*.yaml"))
DENSE = sorted(CONFIGS.glob("data/dense/*.yaml"))
"""Configs of `evaluate`, which the tests of data sets read."""
TOYS = sorted(CONFIGS.glob("toy/*.yaml"))
PUBLISHED = sorted(CONFIGS.glob("toy/*_published.yaml"))
"""Configs of a published size, which need a GPU."""
SMALL = (
    "--data.image.size",
    "32",
    "--data.num_workers",
    "0",
    "--data.batch_size",
    "8",
    "--data.eval_batch_size",
    "8",
    "--data.source.num_classes",
    "10",
)  # for the small images that replace ImageNet
SHALLOW = {"vit_b16": "2", "vit_l16": "1", "lejepa_l16": "1"}
"""Reduced depth of models that would take long."""


def ids(path: Path) -> str:
    """Name of a config in the IDs of tests."""
    return str(path.relative_to(CONFIGS).with_suffix(""))


def assert_trained(run_dir: Path) -> None:
    """Check the loss, the diagnostics and the validation of a run of two steps."""
    losses = [float(value) for value in column(run_dir, "train/loss").values()]
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
    assert heads(run_dir, 2)["step"].to_list() == [2] * len(heads(run_dir, 0))
    assert (run_dir / "DONE").exists()
    assert "val/acc1" in metrics(run_dir)[-1]


@pytest.fixture
def locations(shards: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment variables with the locations that the shipped data configs read."""
    monkeypatch.setenv("IMAGENET_TRAIN", f"{shards}/train-{{0000..0003}}.tar")
    monkeypatch.setenv("IMAGENET_VAL", f"{shards}/val-{{0000..0001}}.tar")
    monkeypatch.setenv("IMAGENET100_TRAIN", f"{shards}/train-{{0000..0003}}.tar")
    monkeypatch.setenv("IMAGENET100_VAL", f"{shards}/val-{{0000..0001}}.tar")
    monkeypatch.setenv("IMAGE_FOLDER_TRAIN", f"{image_folder}/train")
    monkeypatch.setenv("IMAGE_FOLDER_VAL", f"{image_folder}/val")


def test_every_config_is_tested() -> None:
    assert {*VARIANTS, *STACKED, *DATA, *DENSE, *TOYS} == set(CONFIGS.rglob("*.yaml"))


def stack(path: Path) -> list[Path]:
    """A config, after those that it must follow on the command line."""
    data = "scenes" if path.stem == "vit_mini_p4_d8" else "imagenet"  # patches of 4 pixels
    return [CONFIGS / "gate_reg.yaml", CONFIGS / "data" / f"{data}.yaml", path] if path in STACKED else [path]


@pytest.mark.usefixtures("locations")
@pytest.mark.parametrize(
    "path", [*VARIANTS, *DATA, *(pytest.param(path, marks=pytest.mark.heavy) for path in STACKED)], ids=ids
)
def test_a_config_can_be_planned(path: Path) -> None:
    assert path.read_text().startswith("# ")
    args = [word for config in stack(path) for word in ("--config", config)]
    shallow = ("--model.backbone.depth", SHALLOW[path.stem]) if path.stem in SHALLOW else ()
    planned = json.loads(run("plan", *args, *shallow, "--json").succeeded().out)
    assert planned["flops_per_image"] > 0
    if path in VARIANTS:
        assert planned["name"].endswith(f"-{path.stem}")


def test_a_variant_trains_with_the_config_that_is_printed(tmp_path: Path) -> None:
    path = CONFIGS / "gate_elementwise_reg.yaml"
    config = yaml.safe_load(run("fit", "--config", path, "--print_config").succeeded().out)
    assert config["variant"] == path.stem
    fit(tmp_path / "run", configs=[path]).succeeded()
    assert_trained(tmp_path / "run")
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert stored["model"]["backbone"] == config["model"]["backbone"]


@pytest.mark.usefixtures("locations")
def test_a_recipe_trains_on_the_imagenet_config(tmp_path: Path) -> None:
    configs = stack(CONFIGS / "recipe" / "deit3_s16_800ep.yaml")
    smaller = (
        *SMALL,
        "--data.image.size",
        "32",
        "--model.backbone.depth",
        "2",
        "--model.optim.warmup_steps",
        "1",  # the warmup of the recipe is longer than this run
    )
    fit(tmp_path / "run", *smaller, configs=configs).succeeded()
    assert_trained(tmp_path / "run")


@pytest.mark.usefixtures("locations")
def test_a_data_config_trains(tmp_path: Path) -> None:
    small = (*SMALL, "--data.image.size", "28")  # a multiple of the default patch size
    fit(tmp_path / "run", *small, configs=[CONFIGS / "data" / "folder.yaml"]).succeeded()
    assert_trained(tmp_path / "run")


def test_later_configs_and_flags_take_precedence(tmp_path: Path) -> None:
    extra = tmp_path / "extra.yaml"
    extra.write_text("variant: mine\nmodel: {backbone: {registers: 2}}\n")
    config = run(
        "fit", "--config", CONFIGS / "gate_reg.yaml", "--config", extra, "--model.backbone.depth", "3", "--print_config"
    ).succeeded()
    config = yaml.safe_load(config.out)
    assert config["variant"] == "mine"
    assert config["model"]["backbone"]["registers"] == 2
    assert config["model"]["backbone"]["depth"] == 3
    assert config["model"]["backbone"]["attention"]["gate"] == "headwise"


def test_a_toy_trains_and_is_evaluated(tmp_path: Path) -> None:
    """A short run; the heavy tests of `test_two_algorithms` train both toys to the end."""
    run_dir = tmp_path / "run"
    run(
        "fit",
        "--config",
        CONFIGS / "toy" / "nop.yaml",
        "--data.batch_size",
        "32",
        "--trainer.max_epochs",
        "4",
        "--run_dir",
        run_dir,
        "--wandb.mode",
        "disabled",
    ).succeeded()
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["toy/label"] == "nop"
    assert (run_dir / "figures" / "formation.csv").is_file()
    losses = [float(value) for value in column(run_dir, "val/loss").values()]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("path", TOYS, ids=ids)
def test_a_toy_config_trains(path: Path, tmp_path: Path) -> None:
    assert path.read_text().startswith("# ")
    run(
        "fit",
        "--config",
        path,
        "--data.steps",
        "2",
        "--data.batch_size",
        "32",
        "--trainer.max_epochs",
        "1",
        "--run_dir",
        tmp_path / "run",
        "--wandb.mode",
        "disabled",
        "--trainer.log_every_n_steps",
        "1",
    ).succeeded()
    assert len(column(tmp_path / "run", "train/loss")) == 2


@pytest.mark.parametrize("path", PUBLISHED, ids=ids)
def test_a_published_toy_has_the_published_size(path: Path) -> None:
    config = yaml.safe_load(run("fit", "--config", path, "--print_config").succeeded().out)
    steps = {"nop": 5_000, "broadcast": 30_000}[config["model"]["toy"]["task"]]
    assert config["data"]["batch_size"] == 1024
    assert config["data"]["steps"] * config["trainer"]["max_epochs"] == steps


def test_a_written_config_names_the_version_and_can_be_run_again(finished: Path, tmp_path: Path) -> None:
    from sinkablate import __version__

    first, _ = (finished / "config.yaml").read_text().split("\n", 1)
    assert first == f"# written by sinkablate {__version__}"
    run(
        "fit",
        "--config",
        finished / "config.yaml",
        "--run_dir",
        tmp_path / "run",
        "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=1",
    ).succeeded()

"""The contract of a run directory: its files, what may be overwritten, and how a run is resumed or repeated."""

import re
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml
from running import CONFIGS, QUICK, column, fit, metrics, run, summary, tree

from sinkablate.config import AttentionConfig, BackboneConfig
from sinkablate.run.directory import lock_directory, unlock_directory
from sinkablate.vit.backbone import build_backbone

COLUMNS = {
    "train/loss",
    "lr",
    "val/acc1",
    "val/acc5",
    "val/loss",
    "sink/events",
    "sink/nop",
    "sink/broadcast",
    "sink/mass_max",
    "norm/patch_p99",
    "norm/cls_mean",
    "gate/open",
    "stability/grad_norm",
}
"""Column names that users' dashboards rely on."""


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that tests may change."""
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.fixture
def unfinished(copy: Path) -> Path:
    """The same run as if it had been killed before it finished."""
    for name in ("DONE", "summary.json"):
        (copy / name).unlink()
    return copy


def test_a_run_directory_contains_the_documented_files_only(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "config.yaml",
        "metrics.csv",
        "diagnostics",
        "checkpoints",
        "summary.json",
        "DONE",
    }
    assert not list(finished.rglob("*.partial"))


def test_the_config_is_resolved(finished: Path) -> None:
    text = (finished / "config.yaml").read_text()
    config = yaml.safe_load(text)
    assert "${" not in text
    assert config["run_dir"] == str(finished)
    assert config["variant"] == "gate_reg"
    assert config["model"]["backbone"]["attention"]["gate"] == "headwise"
    assert config["model"]["optim"]["lr"] > 0


def test_metrics_have_one_row_per_step_and_the_known_columns(finished: Path) -> None:
    rows = metrics(finished)
    steps = [int(row["step"]) for row in rows]
    assert steps == list(range(7))
    assert rows[0].keys() >= COLUMNS
    assert list(column(finished, "train/loss")) == list("012345")
    assert list(column(finished, "val/acc1")) == list("25")
    assert list(column(finished, "sink/events")) == list("0246")


def test_diagnostics_have_one_row_per_step_block_and_head(finished: Path) -> None:
    files = sorted((finished / "diagnostics").glob("*.parquet"))
    assert [path.name for path in files] == [f"step_{step:08d}.parquet" for step in (0, 2, 4, 6)]
    table = pl.concat([pl.read_parquet(path) for path in files])
    rows = table.select("step", "block", "head").rows()
    assert sorted(rows) == [(s, b, h) for s in (0, 2, 4, 6) for b in range(4) for h in range(4)]
    blocks = pl.read_parquet(finished / "diagnostics" / "blocks" / "step_00000006.parquet")
    assert blocks.select("step", "block").rows() == [(6, b) for b in range(4)]


def test_the_checkpoint_is_complete_and_safe_to_load(finished: Path) -> None:
    path = finished / "checkpoints" / "last.ckpt"
    assert {other.name for other in path.parent.iterdir()} == {"last.ckpt", "previous.ckpt", path.resolve().name}
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["global_step"] == 6
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {"backbone"}
    config = BackboneConfig(registers=4, attention=AttentionConfig(gate="headwise"), checkpoint=str(path))
    model = build_backbone(config, num_classes=10, in_chans=1, img_size=28, seed=1)
    for name, p in model.state_dict().items():
        assert torch.equal(p, checkpoint["state_dict"][f"backbone.{name}"])


def test_the_summary_has_the_known_keys(finished: Path) -> None:
    numbers = summary(finished)
    assert {
        "val/acc1",
        "images_per_second",
        "wall_seconds",
        "sink/events",
        "sink/nop",
        "sink/broadcast",
        "sink/mass_max",
        "norm/patch_p99",
        "versions",
        "git_revision",
        "rules",
    } <= numbers.keys()
    last = metrics(finished)
    assert numbers["val/acc1"] == pytest.approx(float(last[5]["val/acc1"]))
    assert numbers["sink/mass_max"] == pytest.approx(float(last[6]["sink/mass_max"]))
    assert numbers["images_per_second"] > 0
    assert numbers["wall_seconds"] > 0
    assert (numbers["steps"], numbers["epochs"], numbers["world_size"]) == (6, 2, 1)
    assert {"sinkablate", "torch", "lightning", "timm"} <= numbers["versions"].keys()
    assert numbers["git_revision"] is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", numbers["git_revision"])


def test_done_is_written_last(finished: Path) -> None:
    done = (finished / "DONE").stat().st_mtime_ns
    assert all(path.stat().st_mtime_ns <= done for path in finished.rglob("*") if path.is_file())


def test_the_default_directory_names_model_variant_and_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("fit", "--config", CONFIGS / "gate.yaml", *QUICK, "--seed_everything", "3").succeeded()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")] == ["runs/vit_mini-gate-s3"]
    assert (tmp_path / "runs" / "vit_mini-gate-s3" / "DONE").exists()


def refusal(run_dir: Path, *args: str | Path) -> str:
    """The message of a `fit` that is refused, after a check that nothing in its directory changed."""
    before = tree(run_dir)
    outcome = fit(run_dir, *args, configs=[CONFIGS / "gate_reg.yaml"])
    assert outcome.code == 2
    assert tree(run_dir) == before
    (line,) = outcome.err.splitlines()
    return line


def test_a_finished_run_is_not_overwritten(copy: Path) -> None:
    line = refusal(copy)
    assert f"run_dir={copy}: contains a finished run" in line
    assert "--overwrite true" in line
    assert "finished run" in refusal(copy, "--ckpt_path", copy / "checkpoints" / "last.ckpt")


def test_the_config_of_an_overwriting_run_does_not_overwrite(copy: Path) -> None:
    (copy / "notes.txt").write_text("mine")
    fit(copy, "--overwrite", "true", "--diagnostics.every_n_steps", "0").succeeded()
    assert list(column(copy, "train/loss")) == ["0", "1"]
    assert "sink/events" not in metrics(copy)[0]
    assert {path.name for path in copy.iterdir()} == {
        "config.yaml",
        "metrics.csv",
        "checkpoints",
        "summary.json",
        "DONE",
        "notes.txt",
    }
    before = tree(copy)
    assert "contains a finished run" in run("fit", "--config", copy / "config.yaml").err
    assert tree(copy) == before


def test_the_refusal_of_an_unfinished_run_says_how_to_resume(unfinished: Path) -> None:
    line = refusal(unfinished)
    assert f"run_dir={unfinished}: contains an unfinished run" in line
    assert "--ckpt_path auto" in line
    shutil.rmtree(unfinished / "checkpoints")
    assert "stopped before its first checkpoint" in refusal(unfinished)


def test_a_resumed_run_continues_where_it_stopped(unfinished: Path, finished: Path) -> None:
    words = (
        "--ckpt_path",
        unfinished / "checkpoints" / "last.ckpt",
        "--trainer.limit_train_batches",
        "3",
        "--trainer.max_epochs",
        "3",
    )
    fit(unfinished, *words, configs=[CONFIGS / "gate_reg.yaml"]).succeeded()
    assert [int(row["step"]) for row in metrics(unfinished)] == list(range(10))
    losses = column(unfinished, "train/loss")
    assert list(losses) == list("012345678")
    assert list(losses.items())[:6] == list(column(finished, "train/loss").items())
    assert (unfinished / "DONE").exists()
    assert (summary(unfinished)["steps"], summary(unfinished)["epochs"]) == (9, 3)
    assert yaml.safe_load((unfinished / "config.yaml").read_text())["ckpt_path"] is None, (
        "the config repeats the run from its start"
    )


def test_the_config_of_a_run_repeats_it(finished: Path, tmp_path: Path) -> None:
    run("fit", "--config", finished / "config.yaml", "--run_dir", tmp_path / "again").succeeded()
    again, first = metrics(tmp_path / "again"), metrics(finished)
    assert again == first, "every number of every step is equal to the last digit"
    assert (tmp_path / "again" / "DONE").exists()


def test_the_seed_determines_the_losses(tmp_path: Path) -> None:
    losses = []
    for number, seed in enumerate("112"):
        fit(tmp_path / str(number), "--seed_everything", seed, "--diagnostics.every_n_steps", "0").succeeded()
        losses.append(column(tmp_path / str(number), "train/loss"))
    assert losses[0] == losses[1] != losses[2]
    assert list(losses[0]) == ["0", "1"]


def test_a_second_writer_of_a_directory_is_refused(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    lock = lock_directory(run_dir, "run_dir")
    assert "another process" in fit(run_dir).err
    assert [path.name for path in run_dir.iterdir()] == [".lock"], "nothing is written"
    unlock_directory(lock)
    fit(run_dir).succeeded()
    assert not (run_dir / ".lock").exists()

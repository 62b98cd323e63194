"""A run that was copied or moved is read, written and resumed where it is now."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from running import fit, metrics, run, tree

LIMITS = ("--trainer.limit_test_batches=1", "--trainer.limit_predict_batches=1", "--trainer.limit_val_batches=1")
RESULTS = {"validate": "validate.json", "test": "test.json", "predict": "predictions.parquet"}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs of two steps; tests must not change it."""
    run_dir = tmp_path_factory.mktemp("original") / "run"
    fit(run_dir, "--trainer.max_epochs=2").succeeded()
    return run_dir


@pytest.fixture
def moved(original: Path, tmp_path: Path) -> Path:
    """A copy of the run with all weights zero, so that it gives other numbers."""
    copy = Path(shutil.copytree(original, tmp_path / "moved", symlinks=True))
    path = copy / "checkpoints" / "epoch=1-step=4.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    for tensor in checkpoint["state_dict"].values():
        tensor.zero_()
    torch.save(checkpoint, path)
    return copy


@pytest.mark.parametrize("verb", RESULTS)
@pytest.mark.parametrize("words", ["--config {}/config.yaml", "--config={}/config.yaml", "--run {}", "--run={}"])
def test_the_directory_of_the_config_takes_precedence(words: str, verb: str, original: Path, moved: Path) -> None:
    if "=" in words and verb != "validate":
        pytest.skip("the same code as for validate")
    before = tree(original)
    outcome = run(verb, *words.format(moved).split(), *LIMITS).succeeded()
    assert tree(original) == before
    assert f"weights: {moved}/checkpoints/last.ckpt (step 4)" in outcome.err.splitlines()
    assert (moved / RESULTS[verb]).exists()
    if verb == "predict":
        probabilities = pl.read_parquet(moved / RESULTS[verb])["probability"].explode().unique().to_list()
        assert probabilities == pytest.approx([0.1]), "zero weights give uniform probabilities"
    else:
        assert json.loads((moved / RESULTS[verb]).read_text()) != json.loads((original / "summary.json").read_text())


def test_a_copy_without_links_still_has_its_weights(moved: Path) -> None:
    (moved / "checkpoints" / "last.ckpt").unlink()
    outcome = run("validate", "--run", moved, *LIMITS).succeeded()
    assert f"weights: {moved}/checkpoints/epoch=1-step=4.ckpt (step 4)" in outcome.err.splitlines()


def test_a_run_dir_before_the_config_takes_precedence(original: Path, tmp_path: Path) -> None:
    before = tree(original)
    run("fit", "--run_dir", tmp_path / "again", "--config", original / "config.yaml", "--overwrite").succeeded()
    assert tree(original) == before
    assert (tmp_path / "again" / "DONE").exists()


def test_a_run_dir_after_the_run_takes_precedence(original: Path, moved: Path, tmp_path: Path) -> None:
    outcome = run(
        "validate",
        "--run",
        moved,
        "--run_dir",
        original,
        "--data.eval_batch_size=16",
        "--ckpt_path",
        moved / "checkpoints" / "previous.ckpt",
        "--run_dir",
        tmp_path / "out",
    ).succeeded()
    assert f"weights: {moved}/checkpoints/previous.ckpt (step 2)" in outcome.err.splitlines()
    assert (tmp_path / "out" / "validate.json").exists()


@pytest.mark.parametrize("words", [("--run", "{}/none"), ("--run=",), ("--run", "{}")])
def test_a_directory_without_a_run_is_refused(words: tuple[str, ...], tmp_path: Path) -> None:
    outcome = run("validate", *(word.format(tmp_path) for word in words))
    (line,) = outcome.err.splitlines()
    assert (outcome.code, "not the directory of a run (it contains no config.yaml)" in line) == (2, True)


def test_a_moved_run_is_resumed_where_it_is(original: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(original, tmp_path / "moved"))  # as a copy in which links became files
    for name in ("DONE", "summary.json", "checkpoints/epoch=1-step=4.ckpt", "checkpoints/last.ckpt"):
        (moved / name).unlink()
    before = tree(original)
    outcome = run("fit", "--config", moved / "config.yaml", "--ckpt_path=auto").succeeded()
    assert f"resuming from {moved}/checkpoints/previous.ckpt" in outcome.err
    assert tree(original) == before
    assert metrics(moved) == metrics(original)
    assert {path.name for path in (moved / "checkpoints").iterdir()} == {
        "epoch=1-step=4.ckpt",
        "last.ckpt",
        "previous.ckpt",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--trainer.max_epochs=3",
            "trainer.max_epochs=3: run_dir={} contains a finished run with 2, whose learning-rate "
            "schedule has ended; to train longer in a new run, give --run_dir NEW --ckpt_path {}/checkpoints/last.ckpt",
        ),
        ("--model.optim.lr=1e-4", "model.optim.lr=0.0001: run_dir={} contains a finished run with 0.003; choose"),
        ("--data.num_workers=1 --wandb.project=other --checkpoint.save_top_k=-1", ""),
    ],
)
def test_changed_keys_of_a_finished_run_are_refused(words: str, message: str, original: Path) -> None:
    before = tree(original)
    outcome = fit(original, "--trainer.max_epochs=2", *words.split(), "--ckpt_path=auto")
    (line,) = outcome.err.splitlines()
    assert (outcome.code, tree(original)) == (2 if message else 0, before)
    assert (message.format(original, original) or "contains the finished run; nothing to do") in line

"""Interruptions, damaged files and a second process: one line, nothing lost, the same bytes."""

from pathlib import Path

import pytest
from evaluating import evaluate, folder_data, same_results, small_chunks, table
from forking import die_after
from PIL import Image
from running import Outcome, assert_refused, ranks, run, started
from sharing import Once

from sinkablate.run.directory import lock_directory, unlock_directory


def words(out: Path, run_dir: Path, folder: Path) -> list[str]:
    """Arguments of an evaluation on a folder of images, in another process."""
    model = ("--run", str(run_dir), "--device", "cpu", "--tasks", "knn,linear", "--linear.epochs", "2")
    return ["evaluate", "--out", str(out), *model, *folder_data(folder)]


@pytest.fixture(scope="module")
def alone(finished: Path, image_folder: Path, once: Once) -> Path:
    """An evaluation that was not interrupted."""

    def write(root: Path) -> None:
        with started(*words(root / "out", finished, image_folder), before=small_chunks) as command:
            assert command.wait() == 0, command.output()

    return once("evaluated_alone", write) / "out"


class Killed:
    """Small chunks, and the end of the process once a chunk of a set is finished; a class, because it is pickled."""

    def __init__(self, folder: Path, pattern: str) -> None:
        self.folder, self.pattern = folder, pattern

    def __call__(self) -> None:
        small_chunks()
        die_after(self.folder, self.pattern)


@pytest.mark.parametrize("pattern", ["features/*/000008-000016.npy", "features/*/000016-000020.npy", "*.parquet"])
def test_a_killed_evaluation_resumes_with_the_same_bytes(
    pattern: str, alone: Path, finished: Path, image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with started(*words(out, finished, image_folder), before=Killed(out, pattern)) as command:
        assert command.wait() == -9, command.output()
    assert list(out.glob(pattern))
    with started(*words(out, finished, image_folder), before=small_chunks) as command:
        assert command.wait() == 0, command.output()
    same_results(out, alone)


@pytest.mark.heavy
def test_two_ranks_write_the_bytes_of_one_process(
    alone: Path, finished: Path, image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first, second = ranks(2, *words(out, finished, image_folder), before=small_chunks)
    assert first.code == 0, first.err
    assert "results: " in first.out
    assert second.out == ""
    same_results(out, alone)


@pytest.mark.heavy
def test_an_error_of_one_rank_ends_all_with_one_line(finished: Path, image_folder: Path, tmp_path: Path) -> None:
    folder = broken(image_folder, tmp_path, "train")
    outcomes = ranks(2, *words(tmp_path / "out", finished, folder), before=small_chunks)
    assert [outcome.code for outcome in outcomes] == [2, 2]
    lines = [line for outcome in outcomes for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, outcomes
    assert "the file is empty" in lines[0]


def broken(folder: Path, root: Path, split: str) -> Path:
    """Copy a folder of images with one empty file."""
    for path in sorted(folder.rglob("*.png")):
        target = root / "broken" / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    max((root / "broken" / split).rglob("*.png")).write_bytes(b"")
    return root / "broken"


def test_an_unreadable_image_is_named_and_may_be_repaired(finished: Path, image_folder: Path, tmp_path: Path) -> None:
    folder = broken(image_folder, tmp_path, "val")
    outcome = evaluate(tmp_path / "out", finished, *folder_data(folder))
    last_line = Outcome(outcome.code, outcome.out, outcome.err.splitlines()[-1])  # after those of the progress
    assert_refused(last_line, "the file is empty", "broken/val: 9/")
    Image.new("RGB", (32, 32)).save(max((folder / "val").rglob("*.png")))
    evaluate(tmp_path / "out", finished, *folder_data(folder)).succeeded()


def test_remote_shards_are_refused(finished: Path, tmp_path: Path) -> None:
    source = ("--data.source.format", "shards", "--data.source.reader", "stream", "--data.source.num_classes", "10")
    url = "https://example.org/{0000..0003}.tar"
    outcome = evaluate(tmp_path / "out", finished, *source, "--data.source.train", url, "--data.source.val", url)
    assert_refused(outcome, "data.source.train=https://example.org/0000.tar: not a local file")


def test_a_second_process_is_refused(finished: Path, image_folder: Path, tmp_path: Path) -> None:
    lock = lock_directory(tmp_path / "out", "out")
    try:
        outcome = evaluate(tmp_path / "out", finished, *folder_data(image_folder))
    finally:
        unlock_directory(lock)
    assert_refused(outcome, "another process is writing to it")


def test_files_of_others_are_not_replaced(finished: Path, image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "evaluation.parquet").write_text("mine")
    outcome = evaluate(tmp_path, finished, "--overwrite", *folder_data(image_folder))
    assert_refused(outcome, "contains evaluation.parquet, but is not an evaluation")
    assert (tmp_path / "evaluation.parquet").read_text() == "mine"


def test_a_changed_set_of_images_is_refused(finished: Path, image_folder: Path, tmp_path: Path) -> None:
    folder = broken(image_folder, tmp_path, "val")
    path = max((folder / "val").rglob("*.png"))
    Image.new("RGB", (32, 32)).save(path)
    evaluate(tmp_path / "out", finished, *folder_data(folder)).succeeded()
    before = table(tmp_path / "out").rows()
    path.unlink()
    assert_refused(evaluate(tmp_path / "out", finished, *folder_data(folder)), "holds an evaluation", "images")
    assert table(tmp_path / "out").rows() == before


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    outcome = run("evaluate", "--run", tmp_path, "--out", tmp_path / "out")
    assert_refused(outcome, "holds no config.yaml")
    assert not (tmp_path / "out").exists()

"""What `evaluate` writes and prints."""

import re
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from evaluating import evaluate, folder_data, numbers, table
from running import assert_refused, tree
from sharing import Once
from torchvision.transforms import CenterCrop, Compose, Lambda, RandomCrop, Resize, ToTensor

import sinkablate as sa
from sinkablate.evaluate.images import transform_digest


@pytest.fixture(scope="module")
def evaluated(finished: Path, image_folder: Path, once: Once) -> Path:
    """The nearest neighbors of a small folder of images, with a run."""

    def write(root: Path) -> None:
        outcome = evaluate(root / "out", finished, *folder_data(image_folder)).succeeded()
        (root / "stdout.txt").write_text(outcome.out)
        (root / "stderr.txt").write_text(outcome.err)

    return once("evaluated", write)


def test_an_evaluation_writes_rows_numbers_and_figures(evaluated: Path) -> None:
    out = evaluated / "out"
    names = {path.name for path in out.iterdir()}
    assert names == {"evaluation.json", "evaluation.parquet", "features", "figures"}
    assert {path.name for path in (out / "figures").iterdir()} == {f"evaluation.{x}" for x in ("csv", "pdf", "png")}
    rows = table(out)
    assert rows["value"].is_between(0, 1).all()
    assert set(rows["backbone"]) == {"model", "random", "pixels"}
    first = rows.filter((pl.col("metric") == "acc1") & (pl.col("backbone") == "model"))
    assert first["protocol"].to_list() == ["cls k=20", "cls k=10", "cls k=40"]  # 40 training images
    content = numbers(out)
    assert content["knn/acc1"] == first["value"][0]
    assert content["knn/acc1/cls k=10"] == first["value"][1]
    assert content["seconds"]["knn"] > 0


def test_the_terminal_shows_the_floors_and_what_was_limited(evaluated: Path) -> None:
    shown = (evaluated / "stdout.txt").read_text()
    for phrase in ("random weights", "raw pixels", "cls k=20", "acc5", "results: "):
        assert phrase in shown
    assert (evaluated / "stderr.txt").read_text().count("knn.k=200 is limited to the 40 training images") == 1


def test_a_finished_task_is_not_run_again_and_others_can_be_added(
    evaluated: Path, finished: Path, image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(evaluated / "out", out)
    before = tree(out)
    evaluate(out, finished, *folder_data(image_folder)).succeeded()
    assert tree(out) == before
    words = ("--linear.epochs", "2", "--seeds", "0")
    evaluate(out, finished, *folder_data(image_folder), *words, tasks="linear").succeeded()
    assert table(out).filter(task="knn").rows() == table(evaluated / "out").rows()
    old, new = numbers(evaluated / "out"), numbers(out)
    assert set(new["tasks"]) == set(new["seconds"]) == {"knn", "linear"}
    assert {name: value for name, value in new.items() if name.startswith("knn/")} == {
        name: value for name, value in old.items() if name.startswith("knn/")
    }
    assert new["linear/acc1"] == table(out).filter(task="linear", metric="acc1", backbone="model")["value"][0]


@pytest.mark.parametrize(
    ("words", "phrases"),
    [
        (("--tasks", "knm"), ("there is no task knm; did you mean knn?",)),
        (("--tasks", "knn,knn"), ("named twice",)),
        (("--seeds", "1,1"), ("seeds=1,1", "distinct")),
        (("--knn.k", "[0]"), ("knn.k", "at least 1")),
        (("--knn.k", "[5]"), ("holds an evaluation", "not {'k': [5]", "--overwrite")),
        (("--batch_size", "0"), ("batch_size must be at least 1",)),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(
    words: tuple[str, ...], phrases: tuple[str, ...], evaluated: Path, finished: Path, image_folder: Path
) -> None:
    before = (evaluated / "out" / "evaluation.json").read_bytes()
    assert_refused(evaluate(evaluated / "out", finished, *folder_data(image_folder), *words), *phrases)
    assert (evaluated / "out" / "evaluation.json").read_bytes() == before


def test_the_python_function_returns_the_rows_of_the_command(
    evaluated: Path, finished: Path, image_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = sa.evaluate(sa.load_run(finished), ["knn"], data=image_folder)
    assert result.rows.rows() == table(evaluated / "out").rows()
    assert result.summary["knn/acc1"] == numbers(evaluated / "out")["knn/acc1"]
    assert capfd.readouterr() == ("", "")


def test_any_model_is_evaluated_and_left_as_it_was(image_folder: Path, tmp_path: Path) -> None:
    variant = {"gate": "headwise", "sink": "kv_bias", "pathway": "global", "registers": 1}
    model = sa.create_model("vit_tiny_patch16_224", img_size=32, depth=1, **variant)
    before, state = {name: tensor.clone() for name, tensor in model.state_dict().items()}, torch.get_rng_state()
    settings = {"features": {"kind": "both"}, "linear": {"epochs": 2}}
    result = sa.evaluate(model, "linear", data=image_folder, settings=settings, seeds=[3, 4], cache=tmp_path)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert set(result.rows["seed"]) == {3, 4}
    assert set(result.rows["protocol"]) == {"both"}
    assert "linear/acc1_sd@random" in result.summary
    assert len(list(tmp_path.iterdir())) == 6  # three backbones, two sets of images


def test_the_cache_tells_transforms_apart_by_what_they_do(image_folder: Path, tmp_path: Path) -> None:
    model = sa.create_model("vit_tiny_patch16_224", img_size=32, depth=1)

    def folders(factor: float) -> set[str]:
        scaled = Compose([Resize((32, 32)), ToTensor(), Lambda(lambda image: image * factor)])  # repr: Lambda()
        sa.evaluate(model, data=image_folder, transform=scaled, cache=tmp_path, floors=False)
        return {path.name for path in tmp_path.iterdir()}

    assert len(folders(1.0)) == 2
    both = folders(0.5)
    assert len(both) == 4
    assert folders(1.0) == both


def test_a_transform_is_identified_by_its_outputs() -> None:
    state = torch.get_rng_state()
    transforms = [
        Compose([CenterCrop(24), ToTensor()]),
        Compose([CenterCrop(25), ToTensor()]),
        Compose([CenterCrop(24), ToTensor(), Lambda(lambda image: image.flip(0))]),
        Compose([ToTensor(), RandomCrop(100)]),  # the smallest picture is refused
    ]
    assert len({transform_digest(transform, 3) for transform in transforms}) == 4
    assert transform_digest(transforms[0], 3) == transform_digest(Compose(transforms[0].transforms), 3)
    assert transform_digest(transforms[0], 1) == transform_digest(transforms[2], 1)  # one channel, flipped
    refusing = RandomCrop(1000)
    assert transform_digest(refusing, 3) != transform_digest(refusing, 3)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": ["knm"]}, "there is no task knm; did you mean knn?"),
        ({"settings": {"knm": {}}}, "settings: there is no group knm; did you mean knn?"),
        ({"settings": {"knn": {"kk": 3}}}, "settings: knn has no setting kk"),
        ({"settings": {"knn": {"temperature": 0.0}}}, "knn.temperature must be positive"),
        ({"settings": {"features": {"kind": "cls"}}, "model": "patches only"}, "the model has no CLS token; use patch"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_wrong_arguments_raise_an_error_with_one_line(
    arguments: dict[str, Any], message: str, image_folder: Path
) -> None:
    bare = {"class_token": False, "global_pool": "avg"} if arguments.pop("model", None) else {}
    model = sa.create_model("vit_tiny_patch16_224", img_size=32, depth=1, **bare)
    with pytest.raises(sa.UserError, match=re.escape(message)):
        sa.evaluate(model, data=image_folder, **arguments)

"""The command: folders of real runs, the averaged weights, the model card, and refusals that write nothing."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from exporting import untrained
from PIL import Image
from running import CONFIGS, assert_refused, fit, run, tree

import sinkablate as sa
from sinkablate.config import AttentionConfig, BackboneConfig, ModelChoice
from sinkablate.diagnose.command import load_model
from sinkablate.export.timm_format import write_timm
from sinkablate.tasks.classify import Classify

FILES = {"README.md", "config.json", "model.safetensors"}


def export(*args: str | Path) -> Any:
    return run("export", *args)


def test_the_hub_format_has_the_function_of_the_run(finished: Path, exported: Path) -> None:
    assert {path.name for path in exported.iterdir()} == FILES
    assert len({path.stat().st_mode for path in exported.iterdir()}) == 1
    trained, again = sa.load_run(finished), sa.create_model(f"local-dir:{exported}").eval()
    assert torch.equal(again(trained.images), trained.model(trained.images))


def test_the_timm_format_has_the_function_of_the_run(finished: Path, tmp_path: Path) -> None:
    outcome = export("--run", finished, "--out", tmp_path / "model", "--format", "timm").succeeded()
    assert f'timm.create_model("local-dir:{tmp_path}/model", pretrained=True)' in outcome.out
    assert re.search(r"checked: .* differs by [01-9.e-]+ of its largest value", outcome.out)
    model = timm.create_model(f"local-dir:{tmp_path}/model", pretrained=True).eval()
    trained = sa.load_run(finished)
    torch.testing.assert_close(model(trained.images), trained.model(trained.images), rtol=1e-5, atol=1e-6)


def test_the_averaged_weights_are_exported_unless_refused(averaged: Path, tmp_path: Path) -> None:
    printed = export("--run", averaged, "--out", tmp_path / "mean").succeeded().out
    assert "averaged (vit_mini), averaged weights of step 4" in printed
    export("--run", averaged, "--out", tmp_path / "last", "--averaged", "false").succeeded()
    state = torch.load(averaged / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for folder, prefix in {"mean": "ema.module.", "last": "backbone."}.items():
        for name, tensor in sa.create_model(f"local-dir:{tmp_path / folder}").state_dict().items():
            assert torch.equal(tensor, state[prefix + name]), (folder, name)
    assert not torch.equal(state["backbone.head.weight"], state["ema.module.head.weight"])
    assert "moving average" in (tmp_path / "mean" / "README.md").read_text()
    assert "moving average" not in (tmp_path / "last" / "README.md").read_text()
    description = json.loads((tmp_path / "last" / "config.json").read_text())["sinkablate"]
    assert description["backbone"]["attention"]["kernel"] == "auto"  # the run used another one


def test_features_of_lejepa_are_exported_without_projector_and_probe(tmp_path: Path) -> None:
    words = ("--model.backbone.depth", "1", "--model.backbone.attention.score", "relu")
    fit(tmp_path / "run", *words, configs=[CONFIGS / "lejepa_small.yaml"]).succeeded()
    refused = export("--run", tmp_path / "run", "--out", tmp_path / "a" / "b", "--format", "timm")
    assert_refused(refused, "format=timm: timm has no attention with score=relu; use --format hub")
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    export("--run", tmp_path / "run", "--out", tmp_path / "out").succeeded()
    model = sa.create_model(f"local-dir:{tmp_path / 'out'}")
    assert model(torch.zeros(1, 1, 28, 28)).shape == (1, 64)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "has no classifier" in card
    assert "pipeline_tag: image-feature-extraction" in card


def test_an_export_is_a_model_to_measure(exported: Path, finished: Path) -> None:
    """For `diagnose`, `evaluate` and `intervene` alike."""
    trained = sa.load_run(finished)
    choice = ModelChoice(name=f"local-dir:{exported}")
    loaded = load_model("diagnose", choice, None, None, None, trust=False)
    assert torch.equal(loaded.model(trained.images), trained.model(trained.images))
    assert loaded.description["preprocessing"] == trained.loaded.description["preprocessing"]
    assert loaded.description["model"] == f"local-dir:{exported} (vit_mini)"
    assert loaded.transform is not None
    image = Image.effect_noise((40, 30), 64)
    assert torch.equal(loaded.transform(image), trained.loaded.transform(image))  # type: ignore[misc]
    random = load_model("diagnose", replace(choice, pretrained=False), None, None, None, trust=False)
    assert random.description["weights"] == "random"
    assert torch.equal(random.model.head.weight, loaded.untrained(0).head.weight)  # type: ignore[union-attr]
    larger = load_model("diagnose", replace(choice, img_size=56), None, None, None, trust=False)
    assert larger.model(torch.zeros(1, 1, 56, 56)).shape == (1, 10)


@pytest.mark.heavy
def test_diagnoses_of_an_export_with_two_interpolations_are_not_mixed(exported: Path, tmp_path: Path) -> None:
    choices = [
        ModelChoice(name=f"local-dir:{exported}", img_size=56, pos_embed_interpolation=method)  # type: ignore[arg-type]
        for method in ("timm", "dinov2")
    ]
    descriptions = [load_model("diagnose", choice, None, None, None, trust=False).description for choice in choices]
    assert [description["position_embedding"]["method"] for description in descriptions] == ["timm", "dinov2"]
    assert descriptions[0]["loading"]["source"].endswith("model.safetensors")
    words = ("diagnose", "--device", "cpu", "--out", tmp_path / "out", "--images", "builtin", "--limit", "2")
    model = ("--backbone.name", f"local-dir:{exported}", "--backbone.img_size", "56")
    outcome = run(*words, *model).succeeded()
    assert "position embedding resampled from 4 x 4 to 8 x 8 patches (timm: " in outcome.out
    other = run(*words, *model, "--backbone.pos_embed_interpolation", "dinov2")
    assert_refused(other, "position_embedding", "--overwrite")


def test_a_run_that_starts_from_an_export_does_not_need_it_later(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copy = shutil.copytree(exported, "model")
    fit(Path("run"), "--model.backbone.name", "local-dir:model", "--model.backbone.pretrained", "true").succeeded()
    shutil.rmtree(copy)
    assert sa.load_run("run").model.num_reg_tokens == 4
    export("--run", "run", "--out", "again").succeeded()
    assert "started from pretrained weights (a local file)" in Path("again/README.md").read_text()


@pytest.mark.heavy
def test_a_run_that_starts_from_a_timm_folder_is_exported_without_it(tmp_path: Path) -> None:
    """Neither the folder's name nor its path is part of the new export."""
    registers = BackboneConfig(registers=2, register_pos_embed=True, depth=1)
    gated = BackboneConfig(depth=1, attention=AttentionConfig(gate="elementwise"))
    for name, backbone in {"jane_doe": registers, "gated": gated}.items():
        (tmp_path / name).mkdir()
        write_timm(untrained(backbone), tmp_path / name)
        start = ("--model.backbone.name", f"local-dir:{tmp_path / name}", "--model.backbone.pretrained", "true")
        fit(tmp_path / f"run_{name}", *start).succeeded()
    for form in ("hub", "timm"):
        export("--run", tmp_path / "run_jane_doe", "--out", tmp_path / form, "--format", form).succeeded()
        assert "jane" not in (tmp_path / form / "README.md").read_text() + (tmp_path / form / "config.json").read_text()
        assert "started from pretrained weights (a local folder)" in (tmp_path / form / "README.md").read_text()
    shutil.rmtree(tmp_path / "jane_doe")
    assert sa.load_run(tmp_path / "run_jane_doe").model.num_reg_tokens == 2
    again = sa.create_model(f"local-dir:{tmp_path / 'hub'}")
    assert (len(again.blocks), again.num_reg_tokens, again.no_embed_class) == (1, 2, False)
    refused = export("--run", tmp_path / "run_gated", "--out", tmp_path / "lost")
    assert_refused(refused, "format=hub: the model was created with attn_gated, attn_type, use_naflex of timm")
    export("--run", tmp_path / "run_gated", "--out", tmp_path / "kept", "--format", "timm").succeeded()
    shutil.rmtree(tmp_path / "gated")
    moved = run("diagnose", "--run", tmp_path / "run_gated", "--out", tmp_path / "d")
    assert_refused(moved, f"run={tmp_path / 'run_gated'}: ", f"{tmp_path / 'gated'}/config.json", "put the folder back")


@pytest.mark.heavy
def test_an_export_is_measured_and_evaluated(exported: Path, image_folder: Path, tmp_path: Path) -> None:
    name, sets = ("--backbone.name", f"local-dir:{exported}"), ("--data.source.format", "folder")
    images = ("--images", image_folder / "val", "--min_side", "1", "--limit", "2")
    run("diagnose", *name, *images, "--out", tmp_path / "d").succeeded()
    assert json.loads((tmp_path / "d" / "summary.json").read_text())["preprocessing"]["mean"] == [0.286]
    sets += ("--data.source.train", image_folder / "train", "--data.source.val", image_folder / "val")
    run("evaluate", *name, *sets, "--tasks", "knn", "--out", tmp_path / "e").succeeded()
    run("intervene", *name, *images, "--heads", "1:0", "--out", tmp_path / "i").succeeded()


def test_a_fit_of_an_export_starts_at_its_weights(exported: Path, finished: Path) -> None:
    task = Classify(backbone=BackboneConfig(name=f"local-dir:{exported}", pretrained=True))
    expected = sa.load_run(finished).model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in task.backbone.state_dict().items())
    assert task.hparams["backbone"]["name"] == "vit_mini"


def test_an_earlier_export_is_replaced_only_on_request(exported: Path, averaged: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "model")
    (folder / "notes.txt").write_text("mine")
    before = tree(folder)
    assert_refused(
        export("--run", averaged, "--out", folder), f"out={folder}: contains an earlier export", "--overwrite"
    )
    assert tree(folder) == before
    export("--run", averaged, "--out", folder, "--overwrite").succeeded()
    after = tree(folder)
    assert {name for name in after if after[name] != before[name]} == FILES


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_foreign_files_are_never_replaced(
    finished: Path, name: str, overwrite: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / name).write_text("mine")
    outcome = export("--run", finished, "--out", tmp_path, *overwrite)
    assert_refused(outcome, f"out={tmp_path}: contains {name}, but is not an earlier export")
    assert tree(tmp_path).keys() == {name}
    assert (tmp_path / name).read_text() == "mine"


def damaged(finished: Path, folder: Path, change: Any) -> Path:
    """Copy a run and change the content of its last checkpoint."""
    copy = shutil.copytree(finished, folder, symlinks=True)
    path = (copy / "checkpoints" / "last.ckpt").resolve()
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    return copy


def test_runs_that_cannot_be_exported_are_refused(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"

    def refused(path: Path, *phrases: str) -> None:
        assert_refused(export("--run", path, "--out", out), f"run={path}", *phrases)
        assert not out.parent.exists()

    refused(tmp_path / "none", "not the directory of a run")
    diverged = damaged(finished, tmp_path / "nan", lambda c: c["state_dict"]["backbone.head.bias"].fill_(float("nan")))
    refused(diverged, "head.bias are NaN or infinite")
    (shutil.copytree(finished, tmp_path / "empty") / "checkpoints" / "last.ckpt").unlink()
    refused(tmp_path / "empty", "has no checkpoint")
    words = ("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--wandb.mode", "disabled")
    toy = CONFIGS / "toy" / "nop.yaml"
    run("fit", "--config", toy, *words, "--run_dir", tmp_path / "toy").succeeded()
    refused(tmp_path / "toy", "a toy reads synthetic sequences")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--out", ""), "out is empty"),
        (("--format", "onnx"), "format"),
        (("--private",), "private=true has no effect without push_to_hub"),
        (("--push_to_hub", "name"), "push_to_hub=name: not the name of a repository; write USER/NAME"),
        (("--push_to_hub", "a/b c"), "push_to_hub=a/b c: not the name of a repository"),
    ],
)
def test_wrong_options_are_refused(finished: Path, words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    out = () if "--out" in words else ("--out", tmp_path / "out")
    assert_refused(export("--run", finished, *out, *words), says)
    assert list(tmp_path.iterdir()) == []

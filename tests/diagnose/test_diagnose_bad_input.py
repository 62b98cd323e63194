"""Errors of `diagnose` are one line that names the cause, with exit code 2; finished batches are kept."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diagnosing import FILES, SMALL, arrays, diagnose, photographs
from PIL import Image
from running import Outcome, run, spawn, summary, tree

DINOV2 = "--backbone.name vit_small_patch14_dinov2 --backbone.img_size 112"
RANDOM = "--backbone.pretrained false"
IMAGES = "--images {pictures}"
PLAIN = f"{' '.join(SMALL)} {IMAGES}"

CASES = {
    "unknown tag": (f"--backbone.name vit_tiny_patch16_224.foo {IMAGES}", ["vit_tiny_patch16_224.foo", "augreg"]),
    "broken run": (f"--run {{scribble}} {IMAGES}", ["run=", "no checkpoint"]),
    "empty run": (f"--run= {IMAGES}", ["run=", "config.yaml"]),
    "empty hf": (f"--hf= {IMAGES}", ["hf="]),
    "hf: nonsense in preprocessor_config.json": (f"--hf {{processor}} {IMAGES}", ["preprocessor_config.json"]),
    "out is empty": (f"{PLAIN} --out ''", ["out is empty"]),
    "out in /proc": (f"{PLAIN} --out /proc/sinks", ["out=/proc"]),
    "device that computes nothing": (f"{PLAIN} --device meta", ["device=meta"]),
    "no blocks": (f"{PLAIN} --blocks []", ["blocks", "at least one"]),
    "negative side": (f"{PLAIN} --min_side -5", ["min_side", "-5"]),
    "no model": (IMAGES, ["--backbone.name", "--run", "--hf"]),
    "two models": (f"{PLAIN} --run {{nothing}}", ["one model"]),
    "unknown model": (f"--backbone.name vit_smal_patch16_224 {IMAGES}", ["vit_smal_patch16_224", "vit_small_patch16"]),
    "unsupported family": (f"--backbone.name swin_tiny_patch4_window7_224 {RANDOM} {IMAGES}", ["Swin"]),
    "not a transformer": (f"--backbone.name resnet18 {RANDOM} {IMAGES}", ["ResNet"]),
    "talking heads": (f"--backbone.name cait_xxs24_224 {RANDOM} {IMAGES}", ["TalkingHeadAttn"]),
    "no such checkpoint": (f"{DINOV2} --backbone.checkpoint {{nothing}} {IMAGES}", ["backbone.checkpoint", "nothing"]),
    "checkpoint of another model": (
        f"{DINOV2} --backbone.checkpoint {{weights}} {IMAGES}",
        ["backbone.checkpoint", "weights.pt"],
    ),
    "not a checkpoint": (f"{DINOV2} --backbone.checkpoint {{notes}} {IMAGES}", ["notes.txt"]),
    "no images": (" ".join(SMALL), ["images"]),
    "no such folder": (f"{' '.join(SMALL)} --images {{nothing}}", ["nothing"]),
    "folder without images": (f"{' '.join(SMALL)} --images {{empty}}", ["empty", "no image"]),
    "empty list": (f"{' '.join(SMALL)} --images {{blank}}", ["blank.txt", "empty"]),
    "no readable image": (f"{' '.join(SMALL)} --images {{broken}}", ["broken", "no image could be read"]),
    "image too small": (f"{' '.join(SMALL)} --images {{small}} --strict true", ["small", "20 x 40", "min_side"]),
    "unreadable, strict": (f"{' '.join(SMALL)} --images {{broken}} --strict true", ["broken", "strict"]),
    "not a run": (f"--run {{pictures}} {IMAGES}", ["run=", "config.yaml"]),
    "hf: missing path": (f"--hf {{nothing}} {IMAGES}", ["hf=", "nothing"]),
    "hf: nonsense": (f"--hf {{empty}} {IMAGES}", ["hf=", "empty"]),
    "hf: nonsense in config.json": (f"--hf {{nonsense}} {IMAGES}", ["hf=", "config.json"]),
    "hf: a language model": (f"--hf {{language}} {IMAGES}", ["hf=", "Bert"]),
    "hf: convolutions": (f"--hf {{convolutions}} {IMAGES}", ["hf=", "ResNet"]),
    "hf: windows": (f"--hf {{windows}} {IMAGES}", ["Swin"]),
    "hf: inputs other than pixels": (f"--hf {{packed}} {IMAGES}", ["Siglip2VisionModel"]),
    "out below a file": (f"{PLAIN} --out {{notes}}/deep", ["out=", "notes.txt"]),
    "out is a file": (f"{PLAIN} --out {{notes}}", ["out=", "notes.txt"]),
    "out holds another": (f"{PLAIN} --limit 2 --out {{other}}", ["out=", "limit", "--overwrite"]),
    "unknown device": (f"{PLAIN} --device tpu9", ["device=tpu9"]),
    "nonsense device": (f"{PLAIN} --device quick", ["device=quick"]),
    "no such block": (f"{PLAIN} --blocks [12]", ["blocks", "12"]),
    "no image allowed": (f"{PLAIN} --limit 0", ["limit", "0"]),
    "no batch": (f"{PLAIN} --batch_size 0", ["batch_size", "0"]),
    "threshold": (f"{PLAIN} --thresholds.nop_max 0.9", ["error: thresholds.nop_max"]),
    "unknown key": (f"{PLAIN} --tresholds 1", ["tresholds"]),
    "format": (f"{PLAIN} --format yaml", ["format", "yaml"]),
}
if not torch.cuda.is_available():
    CASES["no GPU"] = (f"{PLAIN} --device cuda", ["device=cuda"])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files and folders by the names that `CASES` uses."""
    root = tmp_path_factory.mktemp("inputs")
    paths = {name: root / name for name in ("pictures", "nothing", "empty", "broken", "small", "other")}
    photographs(paths["pictures"])
    for name in ("empty", "broken", "small"):
        paths[name].mkdir()
    (paths["broken"] / "broken.png").write_bytes(b"\x89PNG, or not")
    Image.new("RGB", (20, 40)).save(paths["small"] / "small.png")
    paths |= {"notes": root / "notes.txt", "blank": root / "blank.txt", "weights": root / "weights.pt"}
    paths["notes"].write_text("no weights, no folder")
    paths["blank"].write_text("# nothing\n")
    torch.save({"blocks.0.attn.qkv.weight": torch.zeros(3, 3)}, paths["weights"])
    for name, text in {
        "nonsense": "{",
        "language": '{"model_type": "bert"}',
        "convolutions": '{"model_type": "resnet"}',
        "windows": '{"model_type": "swin", "image_size": 224}',
        "packed": '{"model_type": "siglip2_vision_model"}',
    }.items():
        paths[name] = root / name / "config.json"
        paths[name].parent.mkdir()
        paths[name].write_text(text)
    paths["scribble"] = root / "scribble"
    paths["scribble"].mkdir()
    (paths["scribble"] / "config.yaml").write_text("a: [")
    paths["processor"] = vit_folder(root / "processor")
    (paths["processor"] / "preprocessor_config.json").write_text("{")
    diagnose(paths["other"], paths["pictures"], "--limit", "1").succeeded()
    return paths


def vit_folder(path: Path) -> Path:
    """A saved Hugging Face ViT for 32-pixel images."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8
    )
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(path)
    return path


def assert_one_line(outcome: Outcome, *phrases: str) -> None:
    """Check for exit code 2 and one error line that contains all of these phrases."""
    assert outcome.code == 2, outcome.err or outcome.out
    errors = [line for line in outcome.err.splitlines() if "error: " in line]
    assert len(errors) == 1, outcome.err
    assert "Traceback" not in outcome.err
    missing = [phrase for phrase in phrases if phrase not in errors[0]]
    assert not missing, errors[0]


@pytest.mark.parametrize("case", CASES)
def test_wrong_input_is_refused_in_one_line_and_nothing_is_written(
    case: str, inputs: dict[str, Path], tmp_path: Path
) -> None:
    words, phrases = CASES[case]
    before = tree(inputs["other"])
    out = [] if " --out " in words else ["--out", str(tmp_path / "out")]
    outcome = run("diagnose", *shlex.split(words.format(**inputs)), *out)
    assert_one_line(outcome, *phrases)
    assert not (tmp_path / "out" / "summary.json").exists()
    assert not (tmp_path / "out" / "per_image.npz").exists()
    assert tree(inputs["other"]) == before


def test_weights_missing_offline_are_refused_with_the_key_for_a_local_file(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    outcome = spawn(
        "diagnose",
        "--backbone.name",
        "vit_tiny_patch16_224",
        "--images",
        inputs["pictures"],
        "--out",
        tmp_path / "out",
        HF_HUB_OFFLINE="1",
        HF_HOME=str(tmp_path / "cache"),
    )
    assert_one_line(outcome, "vit_tiny_patch16_224", "--backbone.checkpoint=FILE", "--backbone.pretrained=false")
    assert not (tmp_path / "out").exists()


def test_unreadable_and_small_images_are_skipped_counted_and_named(tmp_path: Path) -> None:
    root, out = tmp_path / "photographs", tmp_path / "out"
    files = photographs(root)
    files[1].write_bytes(files[1].read_bytes()[:60])
    files[4].unlink()
    files[4].symlink_to(tmp_path / "gone")
    Image.new("RGB", (31, 80)).save(files[7])
    outcome = diagnose(out, root, "--batch_size", "2").succeeded()
    content = summary(out)
    assert content["image_count"] == 6
    assert len(content["skipped"]) == 3
    for path, line in zip((files[1], files[4], files[7]), content["skipped"], strict=True):
        assert path.name in line
        assert line in outcome.err
    kept = [path for index, path in enumerate(files) if index not in (1, 4, 7)]
    assert arrays(out)["image_names"].tolist() == [str(path.relative_to(root)) for path in kept]
    assert "3 images skipped" in outcome.out


def test_the_same_command_tries_again_after_no_image_could_be_read(tmp_path: Path) -> None:
    root, out = tmp_path / "photographs", tmp_path / "out"
    files = photographs(root)
    for path in files:
        path.write_bytes(b"nothing")
    outcome = diagnose(out, root)
    assert_one_line(outcome, "no image could be read", "min_side=32")
    assert "0x" not in outcome.err
    photographs(root)
    diagnose(out, root).succeeded()
    assert summary(out)["image_count"] == len(files)


def test_a_run_with_a_broken_configuration_is_refused(tmp_path: Path, finished: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(finished, broken)
    for text in ("a: [", "data: 3", ""):
        (broken / "config.yaml").write_text(text)
        assert_one_line(run("diagnose", "--run", broken, "--out", tmp_path / "out"), "run=", "config.yaml")


def test_a_run_without_a_checkpoint_is_refused(tmp_path: Path, finished: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.yaml").write_text((finished / "config.yaml").read_text())
    assert_one_line(run("diagnose", "--run", bare, "--out", tmp_path / "out"), "run=", "no checkpoint")


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    target = tmp_path / "disk"
    target.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(target)]
    if os.name != "posix" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield target
    subprocess.run(["umount", "-l", str(target)], check=True)


def test_a_full_disk_keeps_finished_batches(full_disk: Path, tmp_path: Path) -> None:
    out, chosen = full_disk / "out", ("--batch_size", "1", "--limit", "9")
    outcome = diagnose(out, "builtin", *chosen)
    assert_one_line(outcome, str(out), "No space left", "finished batches are kept")
    kept = sorted(tree(out / "parts"))
    assert 0 < len(kept) <= 9
    assert not list(out.rglob("*.partial"))
    subprocess.run(["mount", "-o", "remount,size=64m", str(full_disk)], check=True)
    diagnose(out, "builtin", *chosen).succeeded()
    assert set(tree(out)) == FILES
    assert summary(out)["image_count"] == 9

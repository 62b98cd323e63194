"""Commands with wrong values end in one line that names the key, with exit code 2; nothing is written."""

import math
from pathlib import Path

import pytest
import torch
from running import assert_refused, fit, run

LONG = "x" * 300
COMMANDS = {
    "fit --trainer.accelerator tpu": "trainer.accelerator=tpu",
    "fit --trainer.accelerator banana": "trainer.accelerator=banana",
    "fit --trainer.strategy xla": "trainer.strategy=xla",
    "fit --trainer.strategy single_xla": "trainer.strategy=single_xla",
    "fit --trainer.strategy ddp_spawn": "trainer.strategy=ddp_spawn",
    "fit --trainer.precision transformer-engine": "trainer.precision=transformer-engine",
    "fit --trainer.profiler xla": "trainer.profiler=xla",
    "fit --trainer.callbacks.class_path LearningRateFinder": "LearningRateFinder",
    "fit --trainer.callbacks.class_path Timer --trainer.callbacks.duration soon": "Timer",
    "fit --trainer.devices -1": "trainer.devices=-1",
    "fit --trainer.devices banana": "trainer.devices=banana",
    "fit --trainer.devices 999": "trainer.devices=999",
    "fit --trainer.num_nodes 2": "trainer.num_nodes=2",
    "fit --trainer.accumulate_grad_batches 0": "trainer.accumulate_grad_batches=0: must be at least 1",
    "fit --trainer.check_val_every_n_epoch 0": "trainer.check_val_every_n_epoch=0: must be at least 1",
    "fit --trainer.log_every_n_steps 0": "trainer.log_every_n_steps=0: must be at least 1",
    "fit --trainer.val_check_interval 0": "trainer.val_check_interval=0: must be above 0",
    "fit --trainer.val_check_interval 99": "trainer.val_check_interval=99 exceeds the 2 batches",
    "fit --trainer.max_time 00:00:00:00": "trainer.max_time",
    "fit --trainer.gradient_clip_val .nan": "trainer.gradient_clip_val must be a finite number",
    "fit --trainer.fast_dev_run": "--trainer.limit_train_batches",
    "fit --trainer.barebones true": "trainer.barebones",
    "fit --checkpoint.every_n_epochs -1": "checkpoint.every_n_epochs=-1: must be at least 0",
    "fit --trainer.callbacks 5": "trainer.callbacks=5: must be one of: list[Callback], Callback, null",
    "fit --trainer.callbacks.class_path Nope": "trainer.callbacks.class_path=Nope: must be one of: list[Callback]",
    "fit --data.augment.scale [1]": "data.augment.scale=[1]: must be a list of 2 values",
    "fit --checkpoint.filename {banana": "checkpoint.filename",
    "fit --checkpoint.filename {val/acc1:d}": "checkpoint.filename",
    "fit --checkpoint.filename ../../x": "checkpoint.filename",
    f"fit --checkpoint.filename {LONG}": "checkpoint.filename",
    f"fit --run_dir {LONG}": "File name too long",
    "fit --run_dir a\0b": "run_dir=a\\x00b",
    "fit --run_dir ": "run_dir is empty",
    "fit --ckpt_path ": "ckpt_path is empty",
    "fit --model.backbone.checkpoint ": "model.backbone.checkpoint is empty",
    f"fit --ckpt_path {LONG}": "File name too long",
    f"fit --config {LONG}": "File name too long",
    "fit --ckpt_path {files}/weights.safetensors": "model.backbone.checkpoint",
    "fit --ckpt_path {files}/weights.pt": "model.backbone.checkpoint",
    "fit --model.backbone.checkpoint {files}/nan.pt": "weights.nan holds NaN or infinity",
    "fit --config {files}/twice.yaml": "the key registers is repeated",
    "fit --model.backbone {files}/twice_below.yaml": "the key registers is repeated",
    "fit --config {files}/newer.yaml": "written by sinkablate 99.0",
    "fit --config {files}/newer_group.yaml": "written by sinkablate 99.0",
    "fit --stability.factor .nan": "stability.factor must be a finite number",
    "fit --data.num_workers 1000000": "data.num_workers=1000000",
    "fit --data.batch_size 99999999999999999999": "data.batch_size must fit into 64 bits",
    "fit --data.views.count 4": "data.views.count=4",
    "fit --task lejepa --data.views.count 1": "data.views.count=1",
    "fit --task lejepa --data.views.count 2 --data.views.blur_size 57": "data.views.blur_size=57",
    "predict --task toy": "use validate for its error",
    "plan --task lejepa --data.views.count 1": "data.views.count=1",
    "plan --model.optim.opt adamm": "model.optim.opt=adamm",
    "plan --model.optim.warmup_steps 99999": "model.optim.warmup_steps=99999",
    "plan --model.loss.mixup 1 --data.batch_size 15": "data.batch_size=15",
    "plan --data.batch_size 99999": "data.batch_size=99999",
    "plan --trainer.max_epochs 0": "trainer.max_epochs=0",
    "plan --trainer.accumulate_grad_batches 0": "trainer.accumulate_grad_batches",
    "evaluate --run {files} --out out --knn.k 0": "knn.k=0: must be a list in brackets, such as [1,2]",
    "plan --data.image.size 30": "data.image.size=30: does not divide into patches of 7 pixels; use a multiple, "
    "such as 28 or 35",
    "plan --model.backbone.patch_size 5": "model.backbone.patch_size=5: images of 28 pixels do not divide",
    "plan --model.backbone.name cait_xxs24_224 --data.image.size 32": "TalkingHeadAttn",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights and configs that the commands refer to."""
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("files")
    weights = {"head.weight": torch.zeros(10, 64)}
    save_file(weights, root / "weights.safetensors")
    torch.save(weights, root / "weights.pt")
    torch.save(weights | {"weights.nan": torch.tensor([1.0, math.nan])}, root / "nan.pt")
    (root / "twice.yaml").write_text("model:\n  backbone:\n    registers: 1\n    registers: 2\n")
    (root / "twice_below.yaml").write_text("registers: 1\nregisters: 2\n")
    (root / "newer.yaml").write_text("# written by sinkablate 99.0\nmodel: {backbone: {holograms: 3}}\n")
    (root / "newer_group.yaml").write_text("# written by sinkablate 99.0\nholograms: 3\n")
    return root


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.replace("\0", "NUL")[:60])
def test_a_command_is_refused_in_one_line_and_writes_nothing(
    command: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *args = command.split(" ")
    args = [word.replace("{files}", str(files)) for word in args]
    assert_refused(fit(tmp_path / "run", *args) if name == "fit" else run(name, *args), COMMANDS[command])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "phrases"),
    [
        (["train"], ["train", "fit, validate"]),
        (["Fit"], ["Fit"]),
        (["--verbose"], ["--verbose"]),
        (["validate"], ["validate", "--ckpt_path"]),
        (["test", "--ckpt_path", "x.ckpt"], ["ckpt_path=x.ckpt"]),
        (["predict", "--run_dir", "runs/none"], ["runs/none"]),
        (["validate", "--model.backbone.regis", "4"], ["model.backbone.regis"]),
    ],
    ids=str,
)
def test_other_commands_are_refused_in_one_line(args: list[str], phrases: list[str], empty_folder: Path) -> None:
    assert_refused(run(*args), *phrases)
    assert list(empty_folder.iterdir()) == []

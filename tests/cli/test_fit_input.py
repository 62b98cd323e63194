"""Wrong values of the keys of `fit`: one line that names the key, exit code 2, nothing written.

Most are refused by the config class itself, which needs no parser; the others go through the command line.
"""

import math
import resource
import signal
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch
from running import CONFIGS, Outcome, fit, run, tree

from sinkablate import config
from sinkablate.callbacks.run_diagnostics import RunDiagnostics
from sinkablate.cli import lightning
from sinkablate.config import (
    AttentionConfig,
    AugmentConfig,
    BackboneConfig,
    ImageConfig,
    LeJepaConfig,
    PathwayConfig,
    SourceConfig,
    ToyConfig,
    ViewsConfig,
)
from sinkablate.errors import UserError
from sinkablate.toys.data import ToyData

CLASSES = [cls for name in config.__all__ if name.endswith("Config") and isinstance(cls := getattr(config, name), type)]
FLOATS = [
    (cls, field.name) for cls in CLASSES for field in fields(cls) if "float" in str(get_type_hints(cls)[field.name])
]
VALUES: list[tuple[type, dict[str, Any], str]] = [
    *(
        (BackboneConfig, {name: 10**9}, f"{name} must be at most")
        for name in ("depth", "embed_dim", "num_heads", "mlp_ratio", "registers", "img_size")
    ),
    (BackboneConfig, {"depth": 2**63}, "depth must fit into 64 bits"),
    (BackboneConfig, {"mlp_ratio": -1.0}, "mlp_ratio must be at least 0"),
    (BackboneConfig, {"class_token": False, "global_pool": "token"}, "class_token=false leaves"),
    (PathwayConfig, {"kind": "global", "width": 10**9}, "width must be at most"),
    (SourceConfig, {"num_classes": 2**33}, "num_classes must be at most 1,000,000"),
    (SourceConfig, {"num_classes": 0}, "num_classes must be at least 1"),
    (ImageConfig, {"size": 10**6}, "size must be at most"),
    (ImageConfig, {"std": (math.inf,)}, "std must be a finite number"),
    (AugmentConfig, {"scale": (0.5, 9.0)}, "scale is a share of the area"),
    (AugmentConfig, {"aug_repeats": 10**9}, "aug_repeats must be at most"),
    (AugmentConfig, {"auto_augment": "v0"}, "auto_augment=v0"),
    (ViewsConfig, {"count": 10**9}, "count must be at most"),
    (ViewsConfig, {"jitter": (1.0, 1.0, 1.0, 0.6)}, "jitter must"),
    (ViewsConfig, {"jitter": (-1.0, 1.0, 1.0, 0.1)}, "jitter must"),
    *(
        (LeJepaConfig, {name: 10**9}, f"{name} must be at most")
        for name in ("num_slices", "proj_hidden_dim", "proj_dim")
    ),
    (AttentionConfig, {"gate": "headwise", "gate_init_bias": 1e308}, "gate_init_bias must be"),
    (ToyData, {"eval_size": 10**11}, "data.eval_size must be at most"),
    *((ToyConfig, {name: 10**9}, f"{name} must be at most") for name in ("tokens", "width", "registers")),
]
GATED = {"gate": "headwise"}
NEEDED: dict[tuple[type, str], dict[str, Any]] = {
    (AttentionConfig, "gate_init_std"): GATED,
    (AttentionConfig, "gate_init_bias"): GATED,
    (AttentionConfig, "clip_zeta"): {"score": "clipped_softmax"},
    (AttentionConfig, "clip_alpha"): {"score": "clipped_softmax"},
}
"""What else a field needs to have an effect."""


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(("cls", "name"), FLOATS, ids=lambda part: getattr(part, "__name__", part))
def test_no_number_of_a_config_may_be_nan_or_infinite(cls: type, name: str, value: float) -> None:
    default = next(field.default for field in fields(cls) if field.name == name)
    wrong = (value, *default[1:]) if isinstance(default, tuple) else value
    with pytest.raises(UserError, match=rf"^{name} must be a finite number, got (nan|inf)"):
        cls(**NEEDED.get((cls, name), {}), **{name: wrong})


@pytest.mark.parametrize(("cls", "values", "said"), VALUES, ids=lambda x: str(x) if isinstance(x, dict) else "")
def test_a_config_refuses_a_value_that_cannot_be_meant(cls: type, values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        cls(**values)
    assert str(error.value).startswith(said)


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
    "plan --model.backbone.name cait_xxs24_224 --data.image.size 32": "TalkingHeadAttn",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights and configs that the commands name."""
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("files")
    weights = {"head.weight": torch.zeros(10, 64)}
    save_file(weights, root / "weights.safetensors")
    torch.save(weights, root / "weights.pt")
    torch.save({"weights.nan": torch.tensor([1.0, math.nan])}, root / "nan.pt")
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
    verb, *words = command.split(" ")
    words = [word.replace("{files}", str(files)) for word in words]
    refused(fit(tmp_path / "run", *words) if verb == "fit" else run(verb, *words), COMMANDS[command])
    assert list(tmp_path.iterdir()) == []


def refused(outcome: Outcome, said: str) -> None:
    """Exit code 2, and one line that says it."""
    assert outcome.code == 2, outcome
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    assert said in line


@pytest.fixture
def full_disk() -> Iterator[Callable[[int], None]]:
    """Lets no file grow beyond a size."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize(
    ("owner", "function", "name"),
    [(RunDiagnostics, "on_measured", "diagnostics/step_00000000.parquet"), (lightning, "finish_run", "summary.json")],
)
def test_a_full_disk_is_one_line_with_the_file(
    owner: Any,
    function: str,
    name: str,
    tmp_path: Path,
    full_disk: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = getattr(owner, function)

    def fill(*args: Any) -> None:
        full_disk(16)
        write(*args)

    monkeypatch.setattr(owner, function, fill)
    outcome = fit(tmp_path / "run", "--trainer.limit_val_batches=0", "--trainer.limit_train_batches=1")
    refused(outcome, "cannot be written: File too large")
    assert name in outcome.err
    assert not (tmp_path / "run" / "DONE").exists()


@pytest.mark.parametrize(
    ("verb", "name"), [("validate", "validate.json"), ("test", "test.json"), ("predict", "predictions.parquet")]
)
def test_results_that_cannot_be_written_are_named(verb: str, name: str, finished: Path, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()  # in the way
    outcome = run(
        verb,
        "--config",
        CONFIGS / "gate_reg.yaml",
        "--run_dir",
        tmp_path,
        "--data.eval_batch_size=256",
        "--ckpt_path",
        finished / "checkpoints" / "last.ckpt",
        "--trainer.enable_progress_bar=false",
        f"--trainer.limit_{'val' if verb == 'validate' else verb}_batches=1",
    )
    assert outcome.code == 2
    assert f"{name} cannot be written" in outcome.err.splitlines()[-1]
    assert tree(tmp_path) == {}


def test_a_config_says_which_version_wrote_it_and_runs_again(finished: Path, tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    "words",
    [
        ("--model.backbone.global_pool=map",),
        ("--model.backbone.name=vit_base_patch16_siglip_224", "--data.image.size=32", "--model.backbone.depth=1"),
    ],
    ids=str,
)
def test_plan_counts_attention_pooled_models(words: tuple[str, ...]) -> None:
    assert "GFLOP" in run("plan", *words).succeeded().out

"""Training what was added to pretrained weights: the losses, the two parts of the schedule, resuming, and refusals."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from running import CONFIGS, assert_refused, checkpoint, column, fit, summary
from torch import Tensor, nn
from variants import make, noise, perturbed

from sinkablate.config import AttentionConfig, BackboneConfig, ConfigError, OptimConfig, RetrofitConfig
from sinkablate.errors import UserError
from sinkablate.tasks.optim import make_optimizer, make_schedule, warmup_cosine
from sinkablate.tasks.retrofit import SelfDistillation, added_parameters, cls_loss, patch_loss
from sinkablate.vit.additions import additions_of
from sinkablate.vit.backbone import build_backbone
from sinkablate.vit.drift import drift

IMAGES = noise(4, 1, 28, 28)
GATE = AttentionConfig(gate="headwise")
RECIPE = (
    "--model.backbone.attention.gate=headwise",
    "--model.backbone.registers=2",
    "--diagnostics.every_n_steps=0",
    "--trainer.limit_train_batches=4",
    "--model.retrofit.added_steps=4",
    "--model.retrofit.added_lr=1e-2",
)
DISTILL = ("--model.retrofit.cls_weight=1", "--model.retrofit.patch_weight=0.5")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of vit_mini without mechanisms."""
    path = tmp_path_factory.mktemp("weights") / "plain.pt"
    torch.save(perturbed(build_backbone(BackboneConfig(), seed=1)).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a smaller model without mechanisms."""
    path = tmp_path_factory.mktemp("weights") / "small.pt"
    torch.save(perturbed(make()).state_dict(), path)
    return path


def test_the_losses_have_their_closed_forms_in_float64() -> None:
    x, y = noise(3, 5, 8, dtype=torch.float64), noise(3, 5, 8, seed=1, dtype=torch.float64)
    cosines = [float(a @ b / (a.norm() * b.norm())) for a, b in zip(x[:, 0], y[:, 0], strict=True)]
    assert float(cls_loss(x[:, 0], y[:, 0])) == pytest.approx(1 - sum(cosines) / 3, rel=1e-13)
    squares = [sum(float(v) ** 2 for v in part.flatten()) for part in (x - y, y)]
    assert float(patch_loss(x, y)) == pytest.approx(squares[0] / squares[1], rel=1e-13)
    assert float(cls_loss(x[:, 0], 3 * x[:, 0])) == pytest.approx(0, abs=1e-15)
    assert float(patch_loss(x, x)) == 0
    assert float(patch_loss(torch.zeros_like(x), x)) == 1


def distilled(path: Path, config: RetrofitConfig, **fields: Any) -> tuple[Any, SelfDistillation]:
    """A model in training mode and the comparison with the unchanged one."""
    model = make(checkpoint=str(path), **fields).train()
    return model, SelfDistillation(model, config)


def test_the_patch_loss_is_the_square_of_the_drift(small: Path) -> None:
    """Registers are left out, and nothing is compared in evaluation mode."""
    config = RetrofitConfig(cls_weight=2.0, patch_weight=3.0)
    model, distillation = distilled(small, config, attention=GATE, registers=3)
    additions = additions_of(model)
    assert additions is not None
    numbers = drift(model, additions.unchanged(), IMAGES)
    model(IMAGES)
    model.eval()(2 * IMAGES)
    losses = distillation.losses(IMAGES)
    assert float(losses["distill_patches"]) == pytest.approx(3 * numbers["patches"] ** 2, rel=1e-5)
    with torch.no_grad():
        tokens = [m.eval().forward_features(IMAGES)[:, 0] for m in (model, additions.unchanged())]  # type: ignore[operator]
    assert float(losses["distill_cls"]) == pytest.approx(2 * float(cls_loss(*tokens)), rel=1e-4)


def gradients(model: nn.Module, loss: Tensor) -> set[str]:
    """Names of the parameters with a gradient that is not zero."""
    model.zero_grad()
    loss.backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}


@pytest.mark.parametrize("labels", [False, True])
def test_labels_train_the_classifier_only_unless_they_are_to_train_the_backbone(small: Path, labels: bool) -> None:
    config = RetrofitConfig(patch_weight=1.0, labels_train_backbone=labels)
    model, distillation = distilled(small, config, attention=GATE)
    label_loss = nn.functional.cross_entropy(model(IMAGES), torch.arange(4))
    assert gradients(model, label_loss) == (
        {n for n, _ in model.named_parameters()} if labels else {"head.weight", "head.bias"}
    )
    model(IMAGES)
    trained = gradients(model, distillation.losses(IMAGES)["distill_patches"])
    assert trained == {name for name, _ in model.named_parameters() if not name.startswith("head.")}


@pytest.mark.parametrize(("pool", "classifier"), [("avg", ("fc_norm.", "head.")), ("map", ("attn_pool.", "head."))])
def test_labels_train_all_that_follows_the_final_tokens(pool: Any, classifier: tuple[str, ...], tmp_path: Path) -> None:
    """No parameter is without a gradient, for which distributed training would wait."""
    torch.save(perturbed(make(global_pool=pool)).state_dict(), tmp_path / "plain.pt")
    config = RetrofitConfig(cls_weight=1.0, patch_weight=1.0)
    model, distillation = distilled(tmp_path / "plain.pt", config, attention=GATE, global_pool=pool)
    labels = nn.functional.cross_entropy(model(IMAGES), torch.arange(4))
    assert gradients(model, labels) == {name for name, _ in model.named_parameters() if name.startswith(classifier)}
    loss = nn.functional.cross_entropy(model(IMAGES), torch.arange(4)) + sum(distillation.losses(IMAGES).values())
    model.zero_grad()
    loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_the_unchanged_model_is_part_of_no_module(small: Path) -> None:
    model, _ = distilled(small, RetrofitConfig(cls_weight=1.0), attention=GATE)
    assert set(model.state_dict()) == set(make(attention=GATE).state_dict())


@pytest.mark.parametrize("layer_decay", [None, 0.5])
def test_added_parameters_have_a_schedule_of_their_own(small: Path, layer_decay: float | None) -> None:
    """Pretrained parameters stay at rate 0 for the first steps, then both follow the second schedule."""
    model = make(checkpoint=str(small), attention=GATE, registers=2)
    optim = OptimConfig(lr=1e-3, min_lr=1e-4, warmup_steps=2, layer_decay=layer_decay)
    retrofit = RetrofitConfig(added_steps=5, added_lr=1e-2)
    added = added_parameters(model)
    assert set(added) == {"reg_token"} | {f"blocks.{i}.attn.gate.{leaf}" for i in (0, 1) for leaf in ("weight", "bias")}
    optimizer = make_optimizer(model, optim, added=added)
    names = {id(p): name for name, p in model.named_parameters()}
    for group in optimizer.param_groups:
        assert {names[id(p)] in added for p in group["params"]} == {group["added"]}
    schedule = make_schedule(optimizer, optim, 12, retrofit)
    for step in range(12):
        for group in optimizer.param_groups:
            first = 1e-2 * warmup_cosine(step, 5, 2, 1e-2) if group["added"] else 0.0
            expected = first if step < 5 else 1e-3 * warmup_cosine(step - 5, 7, 2, 0.1)
            assert group["lr"] == pytest.approx(expected * group.get("lr_scale", 1.0), rel=1e-12)
        optimizer.step()
        schedule.step()


def test_the_first_steps_change_only_what_was_added(weights: Path, tmp_path: Path) -> None:
    words = (*RECIPE, *DISTILL, "--model.backbone.checkpoint", str(weights), "--model.ema.decay=0.9")
    fit(
        tmp_path / "run",
        *words,
        "--trainer.max_epochs=2",
        "--checkpoint.save_top_k=-1",
        "--checkpoint.filename=e{epoch}",
    ).succeeded()
    plain = torch.load(weights, weights_only=True)
    first, last = (checkpoint(tmp_path / "run", name)["state_dict"] for name in ("eepoch=0", "last"))
    moved = [
        {name for name, p in plain.items() if not torch.equal(p, state[f"backbone.{name}"])} for state in (first, last)
    ]
    assert moved[0] == {"cls_token", "pos_embed"}  # rearranged for the registers, with the same sums
    assert moved[1] == set(plain)
    assert not torch.equal(first["backbone.blocks.0.attn.gate.bias"], torch.full((4,), 2.0))
    losses = column(tmp_path / "run", "train/distill_patches")
    assert len(losses) == 8
    assert all(math.isfinite(float(loss)) for loss in losses.values())
    rates = [float(rate) for rate in column(tmp_path / "run", "lr").values()]
    assert max(rates[:4]) == pytest.approx(1e-2)
    assert "val/acc1" in summary(tmp_path / "run")


@pytest.mark.parametrize("step", [2, 6])
def test_a_resumed_retrofit_equals_the_uninterrupted_one(weights: Path, tmp_path: Path, step: int) -> None:
    words = (*RECIPE, *DISTILL, "--model.backbone.checkpoint", str(weights), "--trainer.max_epochs=2")
    saving = ("--checkpoint.every_n_train_steps=2", "--checkpoint.save_top_k=-1", "--checkpoint.filename=s{step}")
    fit(tmp_path / "run", *words, *saving).succeeded()
    fit(tmp_path / "more", *words, "--ckpt_path", tmp_path / f"run/checkpoints/sstep={step}.ckpt").succeeded()
    for name in ("train/loss", "train/distill_cls", "lr"):
        expected = {number: value for number, value in column(tmp_path / "run", name).items() if int(number) >= step}
        assert column(tmp_path / "more", name) == expected
    before, after = (checkpoint(tmp_path / name)["state_dict"] for name in ("run", "more"))
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"added_steps": -1}, "added_steps must be at least 0"),
        ({"added_lr": 1e-3}, "added_lr=0.001 has no effect with added_steps=0"),
        ({"added_steps": 1, "added_lr": 0.0}, "added_lr must be positive"),
        ({"cls_weight": -1.0}, "cls_weight must be at least 0"),
        ({"patch_weight": math.nan}, "patch_weight must be a finite number"),
        ({"labels_train_backbone": True}, "labels_train_backbone=true has no effect without self-distillation"),
    ],
)
def test_values_that_make_no_sense_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        RetrofitConfig(**values)


UNCHANGED = ("--model.backbone.attention.gate=none", "--model.backbone.registers=null")
REFUSED = {
    "random weights": ((), "model.retrofit.added_steps needs the pretrained weights", "model.backbone.checkpoint FILE"),
    "too many steps": (("--model.retrofit.added_steps=9",), "model.retrofit.added_steps=9 exceeds the 4 steps"),
    "long warm-up": (
        ("--model.retrofit.added_steps=1", "--model.optim.warmup_steps=2"),
        "exceeds the 1 steps of a part",
    ),
    "nothing added": (UNCHANGED, "nothing was added to the pretrained weights"),
    "nothing to distill": (
        (*DISTILL, "--model.retrofit.added_steps=0", "--model.retrofit.added_lr=null", *UNCHANGED),
        "self-distillation has no effect on an unchanged model",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_retrofit_without_anything_to_train_is_refused(weights: Path, tmp_path: Path, name: str) -> None:
    words, *phrases = REFUSED[name]
    source = () if name == "random weights" else ("--model.backbone.checkpoint", weights)
    assert_refused(fit(tmp_path / "run", *RECIPE, *source, *words), *phrases)
    assert not (tmp_path / "run").exists()


def test_only_pretrained_weights_have_an_unchanged_model() -> None:
    with pytest.raises(UserError, match="self-distillation needs the pretrained weights"):
        SelfDistillation(make(attention=GATE), RetrofitConfig(cls_weight=1.0))


@pytest.mark.heavy
def test_the_shipped_recipe_trains_on_pretrained_weights(dinov2: Path, image_folder: Path, tmp_path: Path) -> None:
    outcome = fit(
        tmp_path / "run",
        "--data.source.train", image_folder / "train", "--data.source.val", image_folder / "val",
        "--data.image.size=28", "--data.batch_size=2", "--data.eval_batch_size=2", "--data.num_workers=0",
        "--model.retrofit.added_steps=1", "--diagnostics.every_n_steps=0",
        "--model.backbone.checkpoint", dinov2,
        configs=[CONFIGS / "data" / "folder.yaml", CONFIGS / "recipe" / "retrofit.yaml"],
    ).succeeded()  # fmt: skip
    assert outcome.err.startswith("warning: headwise gate and 4 registers changed the final tokens")
    assert summary(tmp_path / "run")["drift"]["added"] == ["headwise gate", "4 registers"]

"""Which parameters decay, and whose gradients are clipped."""

from pathlib import Path

import pytest
import torch
from running import checkpoint, fit
from torch import nn

from sinkablate.config import AttentionConfig, BackboneConfig, LeJepaConfig, OptimConfig
from sinkablate.errors import UserError
from sinkablate.files.strict_yaml import load_yaml
from sinkablate.tasks.checkpoint import refuse_another, training_keys
from sinkablate.tasks.lejepa import LeJepa
from sinkablate.tasks.optim import parameter_groups
from sinkablate.vit.backbone import build_backbone

CONFIGS = Path(__file__).parents[2] / "configs"
REGISTERS = BackboneConfig(
    registers=4, register_pos_embed=True, init_values=1e-4, attention=AttentionConfig(sink="learned", gate="headwise")
)


def decay_by_name(model: nn.Module, config: OptimConfig) -> dict[str, float]:
    """Return the weight decay of every parameter."""
    decay = {
        id(parameter): group["weight_decay"]
        for group in parameter_groups(model, config)
        for parameter in group["params"]
    }
    return {name: decay[id(parameter)] for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("layer_decay", [None, 0.75])
def test_decay_names_the_parameters_that_decay(layer_decay: float | None) -> None:
    model = build_backbone(REGISTERS, num_classes=10, in_chans=1, img_size=28, seed=0)
    settings = {"weight_decay": 0.05, "layer_decay": layer_decay}
    matrices = decay_by_name(model, OptimConfig(**settings))
    special = ("cls_token", "pos_embed", "reg_token")
    for name, parameter in model.named_parameters():
        exempt = parameter.ndim < 2 or name in special
        assert matrices[name] == (0 if exempt else 0.05), name
    everything = decay_by_name(model, OptimConfig(**settings, decay="all"))
    assert everything == dict.fromkeys(everything, 0.05)
    assert everything.keys() == {name for name, _ in model.named_parameters()}


def test_the_two_values_of_decay_have_the_same_groups() -> None:
    """The state of an optimizer fits both, so a run of an earlier version can be resumed."""
    model = build_backbone(REGISTERS, num_classes=10, in_chans=1, img_size=28, seed=0)
    first, second = (
        [[id(parameter) for parameter in group["params"]] for group in parameter_groups(model, config)]
        for config in (OptimConfig(), OptimConfig(decay="all"))
    )
    assert first == second


def test_a_checkpoint_of_an_earlier_version_was_trained_with_the_defaults() -> None:
    task = LeJepa(lejepa=LeJepaConfig(proj_hidden_dim=8, proj_dim=4))
    earlier = {name: dict(group) if isinstance(group, dict) else group for name, group in task.hparams.items()}
    del earlier["optim"]["decay"], earlier["lejepa"]["clip_probe"]
    refuse_another(training_keys(earlier), training_keys(task.hparams))
    other = LeJepa(optim=OptimConfig(decay="all"), lejepa=LeJepaConfig(proj_hidden_dim=8, proj_dim=4))
    with pytest.raises(UserError, match=r"model\.optim\.decay=all differs from the checkpoint's matrices"):
        refuse_another(training_keys(earlier), training_keys(other.hparams))


@pytest.mark.parametrize("clip_probe", [True, False])
def test_the_probe_is_clipped_only_if_told(clip_probe: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    task = LeJepa(lejepa=LeJepaConfig(proj_hidden_dim=8, proj_dim=4, clip_probe=clip_probe))
    for parameter in task.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    norms = []

    def clip(_optimizer: object, value: float, _algorithm: str | None) -> None:
        norms.append(float(nn.utils.clip_grad_norm_(task.parameters(), value)))

    monkeypatch.setattr(task, "clip_gradients", clip)
    task.configure_gradient_clipping(torch.optim.SGD(task.parameters()), 1.0, None)
    trained = [*task.backbone.parameters(), *task.projector.parameters()]
    clipped = [*trained, *task.probe.parameters()] if clip_probe else trained
    assert norms == [pytest.approx(3 * sum(parameter.numel() for parameter in clipped) ** 0.5, rel=1e-5)]
    norm = sum(float(parameter.grad.square().sum()) for parameter in clipped) ** 0.5
    assert norm == pytest.approx(1.0, rel=1e-4)
    probe = {float(parameter.grad.flatten()[0]) for parameter in task.probe.parameters()}
    assert (probe == {3.0}) is not clip_probe


def test_the_lejepa_recipe_and_its_designs_are_those_of_the_paper() -> None:
    recipe = load_yaml((CONFIGS / "recipe" / "lejepa_l16.yaml").read_text())["model"]
    assert (recipe["optim"]["decay"], recipe["lejepa"]["clip_probe"]) == ("all", False)
    types = set()
    for name in ("reg_pos", "gate_reg_pos", "gate_elementwise_reg_pos"):
        backbone = load_yaml((CONFIGS / f"{name}.yaml").read_text())["model"]["backbone"]
        types.add((backbone["registers"], backbone["register_pos_embed"], backbone["register_init_std"]))
    assert types == {(4, True, 0.02)}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_fused_optimizer_clips_gradients_in_any_precision(precision: str, tmp_path: Path) -> None:
    fit(
        tmp_path / "run",
        "--model.optim.opt=sgd",
        "--model.optim.weight_decay=0",  # otherwise it would be part of the buffer
        f"--trainer.precision={precision}",
        "--trainer.gradient_clip_val=0.01",
        "--trainer.limit_train_batches=1",
        "--diagnostics.every_n_steps=0",
    ).succeeded()
    saved = checkpoint(tmp_path / "run")
    (optimizer,) = saved["optimizer_states"]
    assert all(group["fused"] for group in optimizer["param_groups"])
    momentum = torch.cat([state["momentum_buffer"].flatten() for state in optimizer["state"].values()])
    assert momentum.norm() == pytest.approx(0.01, rel=1e-3)  # after one step, the buffer is the clipped gradient

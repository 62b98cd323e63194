"""The common-mode penalty in every task: its value and gradient against a direct computation in float64."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from running import CONFIGS, column, fit, run
from torch import Tensor, nn
from variants import make, noise, perturbed

from sinkablate.config import AttentionConfig, BackboneConfig, CommonModeConfig, LeJepaConfig, PathwayConfig, ToyConfig
from sinkablate.errors import UserError
from sinkablate.tasks.common_mode import CommonModePenalty
from sinkablate.tasks.lejepa import LeJepa
from sinkablate.toys.model import build_toy

GATED = AttentionConfig(gate="elementwise")
PATHWAY = PathwayConfig(kind="global", gating="hierarchical", width=5)


def toy(**fields: object) -> nn.Module:
    return build_toy(ToyConfig(task="broadcast", tokens=6, width=8, attention=GATED, pathway=PATHWAY, **fields), 0)  # type: ignore[arg-type]


def vit() -> nn.Module:
    return make(BackboneConfig(depth=2, embed_dim=32, init_values=1.0, attention=GATED, pathway=PATHWAY))


def direct(model: nn.Module, inputs: Tensor, skip: int, *, before_gate: bool) -> Tensor:
    """The penalty of a batch written out: the update of each block recomputed from its normalized tokens."""
    normed: dict[int, Tensor] = {}
    blocks = list(model.blocks)  # type: ignore[arg-type]
    handles = [
        block.norm1.register_forward_hook(lambda _m, _a, out, i=i: normed.__setitem__(i, out))
        for i, block in enumerate(blocks)
    ]
    model.eval()(inputs)
    for handle in handles:
        handle.remove()
    shares = []
    for i, block in list(enumerate(blocks))[skip:]:
        attn, x = block.attn, normed[i]
        batch, n, _ = x.shape
        q, k, v = attn.qkv(x).view(batch, n, 3, attn.num_heads, attn.head_dim).permute(2, 0, 3, 1, 4)
        heads = ((q @ k.mT * attn.head_dim**-0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
        update = (heads if before_gate else heads * torch.sigmoid(attn.gate(x))) @ attn.proj.weight.T
        if attn.proj.bias is not None:
            update = update + attn.proj.bias
        if (gamma := getattr(block.ls1, "gamma", None)) is not None:
            update = update * gamma
        shares.append((update.mean(1) ** 2).mean() / ((update**2).mean() + 1e-12))
    return torch.stack(shares).mean()


@pytest.mark.parametrize("before_gate", [False, True])
@pytest.mark.parametrize(
    ("build", "inputs", "skip"),
    [
        (toy, noise(3, 6, 8, dtype=torch.float64), 0),
        (lambda: toy(registers=2), noise(3, 6, 8, dtype=torch.float64), 1),
        (vit, noise(8, 1, 28, 28, dtype=torch.float64), 1),  # four views of two images, flattened
    ],
    ids=["toy", "toy with registers", "views"],
)
def test_value_and_gradient_in_float64(
    build: Callable[[], nn.Module], inputs: Tensor, skip: int, before_gate: bool
) -> None:
    model = perturbed(build()).double()
    penalty = CommonModePenalty(model, CommonModeConfig(weight=1.0, skip=skip, before_gate=before_gate))
    model.train()(inputs)
    share = penalty.take()
    expected = direct(model, inputs, skip, before_gate=before_gate)
    assert float(share.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    parameters = list(model.parameters())
    own = torch.autograd.grad(share, parameters, allow_unused=True)
    reference = torch.autograd.grad(expected, parameters, allow_unused=True)
    reached = 0
    for gradient, other in zip(own, reference, strict=True):
        if other is None:
            assert gradient is None or not gradient.any()
        else:
            torch.testing.assert_close(gradient, other, rtol=1e-9, atol=1e-14)
            reached += int(other.abs().max() > 0)
    assert reached > 0


def test_gradient_checkpointing_changes_nothing() -> None:
    """Its backward pass runs the blocks again, which must not be taken for the next step's updates."""
    shares = []
    for checkpointing in (False, True):
        model = make(BackboneConfig(depth=2, embed_dim=32, init_values=1.0, grad_checkpointing=checkpointing)).train()
        penalty = CommonModePenalty(model, CommonModeConfig(weight=1.0, skip=0))
        for step in range(2):
            model(noise(2, 1, 28, 28, seed=step))
            share = penalty.take()
            share.backward()
            shares.append(float(share.detach()))
    assert shares[:2] == pytest.approx(shares[2:], rel=1e-6)
    assert shares[0] != shares[1]


@pytest.mark.parametrize("attention", [AttentionConfig(), AttentionConfig(gate="headwise", gate_position="value")])
def test_before_a_gate_that_does_not_exist_is_refused(attention: AttentionConfig) -> None:
    with pytest.raises(UserError, match=r"^model\.common_mode\.before_gate=true has no effect"):
        CommonModePenalty(make(attention=attention), CommonModeConfig(weight=0.1, before_gate=True))


def test_a_probe_alone_is_not_penalized() -> None:
    config = LeJepaConfig(proj_hidden_dim=8, proj_dim=4, probe_only=True)
    with pytest.raises(UserError, match=r"^model\.common_mode\.weight=0\.1 has no effect with .*probe_only"):
        LeJepa(lejepa=config, common_mode=CommonModeConfig(weight=0.1))


def test_lejepa_trains_with_the_penalty_on_all_views(tmp_path: Path) -> None:
    fit(
        tmp_path / "run",
        "--model.backbone.init_values=1.0",
        "--model.common_mode.weight=0.5",
        configs=[CONFIGS / "lejepa_small.yaml"],
    ).succeeded()
    names = ("train/loss", "train/sigreg", "train/invariance", "train/common_mode")
    loss, regular, same, share = ([float(x) for x in column(tmp_path / "run", name).values()] for name in names)
    assert all(0 < x <= 1 for x in share)
    terms = [0.02 * r + 0.98 * s + 0.5 * c for r, s, c in zip(regular, same, share, strict=True)]
    assert loss == pytest.approx(terms, rel=1e-5)


def test_a_toy_trains_with_the_pathway_and_the_penalty(tmp_path: Path) -> None:
    words = ("--config", CONFIGS / "toy" / "broadcast.yaml", "--data.batch_size=16", "--data.steps=4")
    arm = ("--model.toy.pathway.kind=global", "--model.common_mode.weight=1.0", "--model.common_mode.skip=0")
    more = ("--trainer.max_epochs=1", "--trainer.log_every_n_steps=1", "--wandb.mode=disabled")
    run("fit", *words, *arm, *more, "--data.eval_size=16", "--run_dir", tmp_path / "run").succeeded()
    share = [float(x) for x in column(tmp_path / "run", "train/common_mode").values()]
    assert len(share) == 4
    assert all(0 < x <= 1 for x in share)


def test_a_toy_of_one_block_names_the_key_that_skips_it(tmp_path: Path) -> None:
    words = ("--config", CONFIGS / "toy" / "nop.yaml", "--model.common_mode.weight=0.1", "--run_dir", tmp_path / "run")
    outcome = run("fit", *words, "--wandb.mode=disabled")
    assert outcome.code == 2
    assert "error: model.common_mode.skip=1 leaves no block to penalize" in outcome.err

"""The global pathway and the common-mode penalty: their properties in closed form."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from variants import SMALL, make, noise, perturbed

from sinkablate.attention.module import Attention
from sinkablate.attention.pathway import FLOOR, GlobalPathway, PathwayBlock, common_mode
from sinkablate.config import AttentionConfig, BackboneConfig, CommonModeConfig, PathwayConfig
from sinkablate.config.attention import PathwayGate
from sinkablate.errors import UserError
from sinkablate.tasks.common_mode import CommonModePenalty

GLOBAL = PathwayConfig(kind="global", width=7)
X = noise(3, 11, 20, dtype=torch.float64)


@pytest.fixture
def pathway() -> GlobalPathway:
    torch.manual_seed(0)
    return GlobalPathway(GLOBAL, 20).double()


# ---- the pathway


def test_the_pathway_equals_its_formula(pathway: GlobalPathway) -> None:
    pool, value, proj, gate = pathway.pool.weight[0], pathway.value.weight, pathway.proj.weight, pathway.gate
    for b in range(3):
        pi = torch.stack([pool @ X[b, j] for j in range(11)]).softmax(0)
        g = torch.stack([pi[j] * (value @ X[b, j]) for j in range(11)]).sum(0)
        for i in range(11):
            openness = torch.sigmoid(gate.weight[0] @ X[b, i] + gate.bias[0])
            torch.testing.assert_close(pathway(X)[b, i], openness * (proj @ g))


def test_a_hierarchical_gate_is_its_formula() -> None:
    torch.manual_seed(1)
    pathway = GlobalPathway(PathwayConfig(kind="global", width=7, gating="hierarchical"), 20).double()
    weight, bias = pathway.gate.weight, pathway.gate.bias
    assert weight.shape == (3, 20)
    for b in range(3):
        state = pathway.state(X)[b, 0]
        for i in range(11):
            a, nothing, broadcast = (weight[row] @ X[b, i] + bias[row] for row in range(3))
            opens = 1 / (1 + (-a).exp()) * broadcast.exp() / (nothing.exp() + broadcast.exp())
            torch.testing.assert_close(pathway.openness(X)[b, i, 0], opens, rtol=1e-14, atol=0)
            torch.testing.assert_close(pathway(X)[b, i], opens * (pathway.proj.weight @ state), rtol=1e-12, atol=1e-15)


def test_a_hierarchical_gate_starts_at_a_quarter() -> None:
    pathway = make(pathway=PathwayConfig(kind="global", gating="hierarchical")).blocks[0].pathway
    assert not pathway.gate.bias.any()
    assert pathway.openness(torch.zeros(1, 4, 40)).tolist() == [[[0.25]] * 4]
    assert float(pathway.openness(noise(8, 50, 40)).mean().detach()) == pytest.approx(0.25, abs=0.01)
    with pytest.raises(UserError, match=r"^gate_init_bias=1\.0 has no effect with gating=hierarchical"):
        PathwayConfig(kind="global", gating="hierarchical", gate_init_bias=1.0)


@pytest.mark.parametrize("gate", ["learned", "hierarchical"])
def test_the_update_of_the_pathway_has_rank_one(gate: PathwayGate) -> None:
    torch.manual_seed(0)
    singular = torch.linalg.svdvals(GlobalPathway(PathwayConfig(kind="global", width=7, gating=gate), 20).double()(X))
    assert (singular[:, 1] <= 1e-14 * singular[:, 0]).all()


def test_state_is_invariant_and_update_equivariant_to_the_order_of_tokens(pathway: GlobalPathway) -> None:
    order = torch.randperm(11, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pathway.state(X[:, order]), pathway.state(X))
    torch.testing.assert_close(pathway(X[:, order]), pathway(X)[:, order])


def test_the_pathway_starts_half_open_and_small() -> None:
    model = make(pathway=PathwayConfig(kind="global"))
    for block in model.blocks:
        assert isinstance(block, PathwayBlock)
        assert block.pathway.openness(noise(1, 4, 40)).sub(0.5).abs().max() < 0.2
        assert block.pathway.gate.bias.item() == 0
        assert float(block.pathway.value.weight.detach().std()) == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("attention", [AttentionConfig(), AttentionConfig(gate="headwise", sink="zero")])
def test_a_block_adds_the_pathway_before_the_mlp_and_is_otherwise_unchanged(attention: AttentionConfig) -> None:
    plain = perturbed(make(attention=attention)).double().eval()
    model = make(attention=attention, pathway=PathwayConfig(kind="global")).double().eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    for block in model.blocks:
        block.pathway.proj.weight.data.zero_()
    images = noise(2, 1, 28, 28, dtype=torch.float64)
    assert torch.equal(model(images), plain(images))
    block = perturbed(model.blocks[1])
    x = noise(2, 17, 40, dtype=torch.float64)
    normed = block.norm1(x)
    mid = x + block.ls1(block.attn(normed)) + block.pathway(normed)
    torch.testing.assert_close(block(x), mid + block.mlp(block.norm2(mid)))


@pytest.mark.parametrize("gate", ["learned", "hierarchical"])
def test_gradients_are_nonzero_and_the_state_round_trips(gate: PathwayGate) -> None:
    config = BackboneConfig(**SMALL, registers=2, pathway=PathwayConfig(kind="global", gating=gate))
    model, other = make(config), make(config, seed=1)
    cross_entropy(model(noise(2, 1, 28, 28)), torch.tensor([1, 7])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(noise(1, 1, 28, 28)), model.eval()(noise(1, 1, 28, 28)))


def test_only_listed_blocks_get_a_pathway() -> None:
    model = make(pathway=PathwayConfig(kind="global"), layers=(-1,))
    assert [isinstance(block, PathwayBlock) for block in model.blocks] == [False, True]


def test_options_without_a_pathway_are_refused() -> None:
    with pytest.raises(UserError, match=r"^width=8 has no effect"):
        PathwayConfig(width=8)
    with pytest.raises(UserError, match=r"^pathway cannot change"):
        make(
            name="eva02_tiny_patch14_224",
            depth=None,
            embed_dim=None,
            qkv_bias=None,
            patch_size=None,
            pathway=PathwayConfig(kind="global"),
        )


# ---- the penalty


def test_a_common_update_scores_one_and_a_centered_one_zero() -> None:
    common = noise(4, 1, 6, dtype=torch.float64).expand(4, 9, 6)
    assert common_mode(common) == pytest.approx(1, abs=1e-11)
    assert common_mode(X - X.mean(1, keepdim=True)) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("n", [5, 50])
def test_an_uncorrelated_update_scores_one_over_n(n: int) -> None:
    assert common_mode(noise(400, n, 64, dtype=torch.float64)) == pytest.approx(1 / n, rel=0.03)


def test_the_gradient_is_orthogonal_to_the_update() -> None:
    """Scale invariance: shrinking the update does not reduce the penalty."""
    o = X.clone().requires_grad_()
    common_mode(o).backward()
    assert o.grad is not None
    assert o.grad.norm() > 1e-3
    assert abs(float((o.grad * X).sum())) < 1e-9 * float(o.grad.norm() * o.norm())
    assert common_mode(X * 1e-3) == pytest.approx(float(common_mode(X)), rel=1e-5)


def test_tiny_updates_are_warned_about() -> None:
    assert common_mode(noise(4, 1, 6, dtype=torch.float64).expand(4, 9, 6) * 1e-6) < 0.7
    model = make(init_values=1e-6).train()
    penalty = CommonModePenalty(model, CommonModeConfig(weight=0.1))
    model(noise(2, 1, 28, 28))
    with pytest.warns(UserWarning, match=f"{FLOOR:.0e}"):
        penalty.take()


def updates(model: torch.nn.Module, *, gated: bool) -> list[Tensor]:
    """Attention updates after W_O and LayerScale, through the gate or past it, from the modules' own pieces."""
    updates = []

    def look(block: torch.nn.Module, args: tuple[Tensor]) -> None:
        normed = block.norm1(args[0])
        if gated:
            updates.append(block.ls1(block.attn(normed)))
            return
        attn: Attention = block.attn
        batch, n, _ = normed.shape
        q, k, v = attn.qkv(normed).view(batch, n, 3, attn.num_heads, attn.head_dim).permute(2, 0, 3, 1, 4)
        updates.append(block.ls1(attn.proj((attn.core.weights(q, k) @ v).transpose(1, 2).flatten(2))))

    handles = [block.register_forward_pre_hook(look) for block in model.blocks]  # type: ignore[union-attr]
    with torch.no_grad():
        model.eval()(noise(3, 1, 28, 28))
    for handle in handles:
        handle.remove()
    return updates


@pytest.mark.parametrize("before_gate", [False, True])
@pytest.mark.parametrize("skip", [0, 1])
def test_the_penalty_is_the_mean_over_the_penalized_blocks(skip: int, before_gate: bool) -> None:
    attention = AttentionConfig(gate="headwise")
    model = perturbed(make(attention=attention, init_values=1.0, pathway=PathwayConfig(kind="global")))
    expected = torch.stack([common_mode(o) for o in updates(model, gated=not before_gate)[skip:]]).mean()
    penalty = CommonModePenalty(model, CommonModeConfig(weight=1.0, skip=skip, before_gate=before_gate))
    model.eval()(noise(1, 1, 28, 28, seed=5))  # an evaluation in between is not collected
    model.train()(noise(3, 1, 28, 28))
    share = penalty.take()
    torch.testing.assert_close(share, expected)
    share.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    if skip == 1:
        with pytest.raises(UserError, match="leaves no block"):
            CommonModePenalty(model, CommonModeConfig(weight=1.0, skip=2))

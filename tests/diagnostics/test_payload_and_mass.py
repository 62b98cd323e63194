"""The payload of sinks, its constancy over images, and attention mass by token type."""

import pytest
import torch
from known_views import KINDS, T, random_view
from torch import Tensor

from sinkablate.diagnostics.head_factor import head_factor
from sinkablate.diagnostics.heads import measure, payload_constancy
from sinkablate.diagnostics.norms import mass_by_type
from sinkablate.vit.tokens import TokenType

pytestmark = pytest.mark.filterwarnings("error")


def constancy(payload: Tensor) -> Tensor:
    """Payload constancy (H,) of payloads (B, H, d)."""
    return payload_constancy(payload.sum(0), payload.square().sum((0, -1)), len(payload))


def test_payload_has_the_norms_and_angles_of_u():
    view = random_view("softmax")
    got = measure(view, T)
    u = torch.einsum("hoc,bhnc->bhno", view.out_map, view.v)
    at = u.gather(2, got.heads["sink_idx"][..., None, None].expand(-1, -1, 1, u.shape[-1])).squeeze(2)
    torch.testing.assert_close(
        torch.einsum("bhc,ahc->hba", got.payload, got.payload), torch.einsum("bho,aho->hba", at, at)
    )
    expected = at.mean(0).square().sum(-1) / at.square().sum(-1).mean(0)
    torch.testing.assert_close(constancy(got.payload), expected)


def test_payload_constancy_of_constant_opposite_and_zero_payloads():
    constant = torch.ones(5, 1, 3)
    opposite = torch.tensor([1.0, -1.0]).view(2, 1, 1).expand(2, 1, 3)
    assert float(constancy(constant)) == pytest.approx(1)
    assert float(constancy(opposite)) == 0
    assert torch.isnan(constancy(0 * constant)).all()


def test_payload_constancy_of_a_single_image_is_undefined():
    assert torch.isnan(constancy(torch.ones(1, 2, 3))).all()


@pytest.mark.parametrize("images", [2, 8, 64])
def test_payload_constancy_of_independent_payloads_is_one_over_the_number_of_images(images):
    payload = torch.randn(images, 4000, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(constancy(payload).mean()) == pytest.approx(1 / images, rel=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_mass_by_type_is_the_sum_of_its_columns(kind):
    view = random_view(kind)
    size = view.weights().abs()
    if not view.rows_sum_to_one:
        size = size / size.sum(-1, keepdim=True).clamp_min(1e-300)
    columns, types = size.mean((1, 2)), view.column_types()
    got = measure(view, T).mass
    assert list(got) == ["cls", "register", "patch", "null", "kv_bias"]
    for kind_of in TokenType:
        if (types == kind_of).any():
            torch.testing.assert_close(got[kind_of.label], columns[:, types == kind_of].sum(-1))
        else:
            assert got[kind_of.label].isnan().all()


def test_mass_of_a_model_without_registers():
    view = random_view("softmax", registers=0)
    got = mass_by_type(view.weights().mean((1, 2)), view.layout)
    assert got["register"].isnan().all()
    torch.testing.assert_close(got["cls"] + got["patch"], torch.ones(3, dtype=torch.float64))


def test_head_factor_of_a_weak_direction_keeps_its_norms():
    W = torch.randn(1, 24, 6, generator=torch.Generator().manual_seed(0))
    W[..., 5] = W[..., 0] * (1 + 1e-4)
    x = torch.randn(6, generator=torch.Generator().manual_seed(1))
    exact = (W.double() @ x.double()).norm()
    assert float((head_factor(W)[0] @ x).norm()) == pytest.approx(float(exact), rel=1e-5)


@pytest.mark.parametrize("shape", [(3, 384, 64), (2, 1000, 30), (1, 257, 128), (2, 6, 10), (1, 300, 200)])
def test_head_factor_in_parts_has_the_gram_matrix_of_the_output_map(shape):
    W = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    factor = head_factor(W)
    assert factor.shape == (shape[0], min(shape[1:]), shape[2])
    torch.testing.assert_close(factor.mT @ factor, W.mT @ W, rtol=1e-12, atol=1e-10)

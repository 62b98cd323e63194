"""Query-key geometry against singular values of explicit D x D products in float64."""

from typing import Any

import numpy as np
import pytest
import torch
from families import family
from variants import make, noise, perturbed

from sinkablate.config import AttentionConfig
from sinkablate.diagnostics.geometry import query_key_spectrum, spectral_spikes

transformers = pytest.importorskip("transformers")


def explicit(query: np.ndarray, key: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """All singular values of diag(gain) W_Q^T W_K diag(gain), for (d, D) maps, largest first."""
    return np.linalg.svd(np.diag(gain) @ query.T @ key @ np.diag(gain), compute_uv=False)


def expected(blocks: list[tuple[Any, Any, Any]], heads: int) -> tuple[np.ndarray, np.ndarray]:
    """sigma_1 and its ratio to the mean of the d singular values, from (W_Q, W_K, gain) of each block."""
    largest, spike = [], []
    for query, key, gain in blocks:
        q, k = (w.detach().double().numpy().reshape(heads, -1, w.shape[1]) for w in (query, key))
        width = q.shape[1]
        values = np.array([explicit(q[h], k[h], gain.detach().double().numpy()) for h in range(heads)])
        assert (values[:, width:] < 1e-9 * values[:, :1]).all(), "the product has rank d at most"
        largest.append(values[:, 0])
        spike.append(values[:, 0] / values[:, :width].mean(-1))
    return np.array(largest), np.array(spike)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("d", "width"), [(1, 5), (4, 12), (16, 16), (6, 40)])
def test_the_spectrum_equals_that_of_the_explicit_product(d: int, width: int, dtype: torch.dtype) -> None:
    query, key = noise(3, d, width, seed=1, dtype=dtype), noise(3, d, width, seed=2, dtype=dtype)
    spectrum = query_key_spectrum(query, key)
    assert spectrum.shape == (3, d)
    assert spectrum.dtype is torch.float64
    product = np.einsum("hdi,hdj->hij", query.double().numpy(), key.double().numpy())
    values = np.linalg.svd(product, compute_uv=False)
    np.testing.assert_allclose(spectrum.numpy(), values[:, :d], rtol=1e-10, atol=1e-12 * values.max())


def test_a_rank_deficient_map_has_zero_singular_values() -> None:
    query, key = noise(1, 4, 9, dtype=torch.float64), noise(1, 4, 9, seed=1, dtype=torch.float64)
    query[:, 1:] = query[:, :1] * torch.tensor([1.0, -2.0, 0.5]).view(1, 3, 1)
    spectrum = query_key_spectrum(query, key)[0]
    assert spectrum[0] > 1
    assert (spectrum[1:] < 1e-12 * spectrum[0]).all()
    assert query_key_spectrum(0 * query, key).tolist() == [[0, 0, 0, 0]]


def test_a_rotation_of_the_head_changes_nothing() -> None:
    query, key = noise(2, 6, 20, dtype=torch.float64), noise(2, 6, 20, seed=1, dtype=torch.float64)
    turn = torch.linalg.qr(noise(6, 6, seed=2, dtype=torch.float64)).Q
    torch.testing.assert_close(query_key_spectrum(turn @ query, turn @ key), query_key_spectrum(query, key))


@pytest.mark.parametrize(
    ("name", "heads"),
    [("vit_tiny_patch16_224", 3), ("vit_small_patch14_dinov2", 6), ("vit_base_patch16_siglip_224", 12)],
)
def test_spectra_of_timm_models_include_the_gain_of_the_norm(name: str, heads: int) -> None:
    model = family(name, embed_dim=heads * 8)
    blocks = [(*block.attn.qkv.weight.chunk(3)[:2], block.norm1.weight) for block in model.blocks]
    assert all(gain.std() > 0.1 for _, _, gain in blocks), "a gain of one would prove nothing"
    largest, spike = spectral_spikes(model, [0, 1])
    for actual, right in zip((largest, spike), expected(blocks, heads), strict=True):
        np.testing.assert_allclose(actual.numpy(), right, rtol=1e-6)
    assert (spike >= 1).all()


@pytest.mark.parametrize("chosen", [[1], [1, 0]])
def test_chosen_blocks_come_in_the_order_given(chosen: list[int]) -> None:
    model = family("vit_tiny_patch16_224")
    for subset, everything in zip(spectral_spikes(model, chosen), spectral_spikes(model, [0, 1]), strict=True):
        assert torch.equal(subset, everything[chosen])


@pytest.mark.parametrize(
    "fields", [{}, {"gate": "headwise"}, {"gate": "elementwise"}, {"sink": "zero"}, {"score": "sigmoid"}], ids=str
)
def test_spectra_under_every_mechanism(fields: dict[str, str]) -> None:
    model = perturbed(make(attention=AttentionConfig(**fields), registers=2))  # type: ignore[arg-type]
    heads = model.blocks[0].attn.num_heads
    blocks = [(*block.attn.qkv.weight.chunk(3)[:2], block.norm1.weight) for block in model.blocks]
    for actual, right in zip(spectral_spikes(model, [0, 1]), expected(blocks, heads), strict=True):
        np.testing.assert_allclose(actual.numpy(), right, rtol=1e-6)


@pytest.mark.parametrize("name", ["ViT", "CLIPVision", "SiglipVision", "Dinov2"])
def test_spectra_of_hugging_face_models(name: str) -> None:
    from hugging_face import query_key_weights, untrained

    model = untrained(name)
    spikes = spectral_spikes(model, [0, 1])
    for measured, right in zip(spikes, expected(query_key_weights(model), 3), strict=True):
        np.testing.assert_allclose(measured.numpy(), right, rtol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: family("vit_tiny_patch16_224", qk_norm=True), id="query-key norms"),
        pytest.param(lambda: family("eva02_tiny_patch14_224"), id="rotary, EVA-02"),
        pytest.param(lambda: family("vit_small_patch16_dinov3"), id="rotary, DINOv3"),
    ],
)
def test_spectra_are_nan_where_logits_are_not_bilinear(model: Any) -> None:
    built = model()
    for spikes in spectral_spikes(built, [0, 1]):
        assert spikes.shape == (2, built.blocks[0].attn.num_heads)
        assert spikes.dtype is torch.float64
        assert spikes.isnan().all()


def test_spectra_are_nan_with_rotary_positions_of_hugging_face() -> None:
    from hugging_face import untrained

    assert spectral_spikes(untrained("DINOv3ViT"), [0, 1])[0].isnan().all()

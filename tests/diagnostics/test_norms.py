"""Token norms, outliers, token variance and the cosine of registers, against explicit formulas."""

import warnings

import numpy as np
import pytest
import torch

from sinkablate.diagnostics.norms import norm_summary, outliers, register_cosine, token_norms, token_variance
from sinkablate.vit.tokens import TokenLayout


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_token_norms():
    x = draw(2, 7, 5)
    np.testing.assert_allclose(token_norms(x), np.sqrt((x.numpy() ** 2).sum(-1)))


def test_summary_by_token_type():
    norms = draw(3, 40).abs()
    norms[1, 20] = 30
    got = norm_summary(norms, TokenLayout(1, 4, 35), 3.0)
    far = np.array([row > row.mean() + 3 * row.std() for row in norms.numpy()])
    for name, where in (("cls", slice(0, 1)), ("register", slice(1, 5)), ("patch", slice(5, 40))):
        x = norms[:, where].numpy()
        expected = {
            "mean": x.mean(),
            "median": np.median(x),
            "p99": np.quantile(x, 0.99),
            "max": x.max(),
            "outliers": far[:, where].mean(),
        }
        assert got[name].keys() == expected.keys()
        for key, value in expected.items():
            assert float(got[name][key]) == pytest.approx(value), (name, key)
    assert got["patch"]["outliers"] > 0


def test_token_types_a_model_lacks_are_nan():
    got = norm_summary(draw(2, 5).abs(), TokenLayout(0, 0, 5), 3.0)
    assert all(torch.isnan(value) for kind in ("cls", "register") for value in got[kind].values())
    assert not any(torch.isnan(value) for value in got["patch"].values())


def test_outliers_are_judged_within_their_image():
    norms = torch.ones(2, 100)
    norms[0, 7] = 10
    norms[1] *= 1000
    assert outliers(norms, 3.0).nonzero().tolist() == [[0, 7]]
    assert torch.equal(outliers(norms, 3.0)[:1], outliers(norms[:1], 3.0))
    assert outliers(norms, 3.0, absolute=150).sum() == 100


def test_one_token_has_no_outlier_and_no_variance():
    assert not outliers(torch.ones(2, 1), 3.0).any()
    assert token_variance(torch.randn(2, 1, 4)).tolist() == [0, 0]


def test_token_variance_ignores_what_all_tokens_share():
    x = draw(2, 9, 6)
    np.testing.assert_allclose(token_variance(x), x.numpy().var(axis=1).mean(-1))
    torch.testing.assert_close(token_variance(x + 5 * draw(1, 1, 6)), token_variance(x))


def test_register_cosine():
    x = draw(3, 4, 6)
    pairs = [torch.nn.functional.cosine_similarity(x[:, i], x[:, j], dim=-1) for i in range(4) for j in range(i)]
    torch.testing.assert_close(register_cosine(x), torch.stack(pairs).mean(0))
    torch.testing.assert_close(register_cosine(x[:, :1].expand(3, 4, 6)), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("registers", [torch.ones(2, 0, 4), torch.ones(2, 1, 4), torch.zeros(2, 3, 4)])
def test_register_cosine_is_undefined_for_fewer_than_two_nonzero_registers(registers):
    assert torch.isnan(register_cosine(registers)).all()

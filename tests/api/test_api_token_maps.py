"""`token_maps` finds a patch that was made large."""

import numpy as np
import pytest
import torch
from torch import nn

import sinkablate as sa


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A model with a grid of 4 x 4 patches, of which the position embedding of row 1, column 1 is very large."""
    model = sa.create_model("vit_mini", registers=2, depth=2, img_size=28, in_chans=1)
    with torch.no_grad():
        model.pos_embed[:, -16:][:, 5] = 60.0
    return model


def test_a_large_position_embedding_is_an_outlier_before_block_0(model: nn.Module) -> None:
    images = torch.randn(10, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    maps = sa.token_maps(model, images, blocks=[0])
    assert [stage.name for stage in maps.stages] == ["before block 0", "after block 0"]
    assert maps.norms.shape == (8, 2, 4, 4)
    assert maps.prefix_norms.shape == (8, 2, 3)
    first = maps.table.row(0, named=True)
    assert (first["fit"], first["outliers"], first["border"]) == ("outliers", 1 / 16, 0)
    expected = np.zeros((4, 4))
    expected[1, 1] = 1
    np.testing.assert_array_equal(maps.frequency[0], expected)
    np.testing.assert_array_equal(sa.measure(model, images, blocks=[0]).token_maps.norms, maps.norms)
    fixed = sa.token_maps(model, images, blocks=[0], thresholds=sa.ThresholdConfig(outlier_norm=1e6))
    assert fixed.table["outliers"].to_list() == [0, 0]

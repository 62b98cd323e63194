"""`redirect`: attention with one column removed, for every mechanism."""

from typing import Any

import pytest
import torch
from edited import MECHANISMS, own
from variants import noise

from sinkablate.diagnostics.view import BlockView, Logits
from sinkablate.intervene.changes import head_weights, redirected
from sinkablate.intervene.replay import Replay


def view_of(name: str) -> BlockView:
    """View of the second block of a model with a mechanism, on one random image."""
    model: Any = own(MECHANISMS[name]).double()
    with torch.no_grad():
        return Replay(model, [1]).run_with_cache(noise(1, 1, 28, 28, dtype=torch.float64)).views[1]


@pytest.mark.parametrize("column", [0, 5])
@pytest.mark.parametrize("name", MECHANISMS)
def test_the_column_is_removed_and_the_row_keeps_its_sum(name: str, column: int) -> None:
    view = view_of(name)
    before = head_weights(view, 1)
    after = redirected(view, 1, before, column)
    assert (after[:, column] == 0).all()
    torch.testing.assert_close(after.abs().sum(-1), before.abs().sum(-1))
    if view.extra and "bias" not in name:
        torch.testing.assert_close(after[:, -1], before[:, -1])  # a zero or learned sink keeps its share
        torch.testing.assert_close(after[:, :-1].sum(-1), before[:, :-1].sum(-1))


@pytest.mark.parametrize("name", ["softmax", "k/v bias", "relu", "polynomial", "sigmoid", "headwise gate of outputs"])
def test_other_columns_keep_their_proportions(name: str) -> None:
    view = view_of(name)
    before = head_weights(view, 0)
    after = redirected(view, 0, before, 2)
    rest = before.index_fill(-1, torch.tensor([2]), 0)
    scale = before.abs().sum(-1, keepdim=True) / rest.abs().sum(-1, keepdim=True)
    live = rest.abs().sum(-1) > 0
    torch.testing.assert_close(after[live], (rest * scale)[live])


@pytest.mark.parametrize("name", ["zero sink", "learned sink"])
def test_without_the_sink_the_tokens_receive_all_attention(name: str) -> None:
    view = view_of(name)
    after = redirected(view, 0, head_weights(view, 0), view.layout.num_tokens)
    torch.testing.assert_close(after.sum(-1), torch.ones(view.layout.num_tokens, dtype=torch.float64))


def test_a_saturated_row_is_redirected_by_its_remaining_logits() -> None:
    """1 - A_is is zero in float32, and dividing by it would give NaN."""
    n, d = 4, 8
    logits = torch.tensor([200.0, 3.0, 2.0, 0.0]).expand(1, 1, n, n)
    view = view_of("softmax")
    saturated = BlockView(
        index=0,
        layout=type(view.layout)(1, 0, 3),
        extra=(),
        q=torch.zeros(1, 1, n, d),
        k=torch.zeros(1, 1, n, d),
        v=torch.zeros(1, 1, n, d),
        logits=Logits(1.0, logits),
        out_map=torch.zeros(1, d, d),
        residual=torch.zeros(1, n, d),
    )
    weights = head_weights(saturated, 0)
    assert (1 - weights[:, 0] == 0).all()
    expected = torch.tensor([0, *torch.tensor([3.0, 2.0, 0.0]).softmax(-1)]).expand(n, n)
    torch.testing.assert_close(redirected(saturated, 0, weights, 0), expected)


def test_a_row_with_nothing_left_is_spread_evenly() -> None:
    view = view_of("relu")
    weights = torch.zeros(3, 4, dtype=torch.float64)
    weights[:, 1] = 0.6
    after = redirected(view, 0, weights, 1)
    torch.testing.assert_close(after, torch.tensor([0.2, 0, 0.2, 0.2], dtype=torch.float64).expand(3, 4))

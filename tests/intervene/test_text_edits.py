"""Edits of language models, whose rows are causal and whose values are shared."""

import pytest
import torch
from edited import editor_of
from tapping import tapped

text_models = pytest.importorskip("text_models")

from sinkablate.intervene.changes import head_weights, redirected  # noqa: E402


@pytest.mark.parametrize("name", ["Bert", "GPT2", "Llama", "GptOss"])
def test_attention_without_a_column_stays_within_what_each_query_can_attend_to(name: str) -> None:
    view = tapped(text_models.untrained(name), text_models.texts(1, causal=name != "Bert"))[0][0]
    weights = head_weights(view, 1)
    rows = redirected(view, 1, weights, 0)
    torch.testing.assert_close(rows.sum(-1), torch.ones(12))
    if view.visible is not None:
        assert (rows[~view.visible] == 0).all()
        torch.testing.assert_close(rows[0], weights[0], msg="the first token can attend to nothing else")
    assert (rows[1:, 0] == 0).all()


@pytest.mark.parametrize("name", ["Bert", "Llama"])
def test_every_token_but_the_sink_counts_and_earlier_ones_do_not_change(name: str) -> None:
    """In a causal model, replacing the value of a token changes nothing before it."""
    inputs = text_models.texts(3, causal=name != "Bert")
    editor = editor_of(text_models.untrained(name), inputs, [(0, 1)], ["zero_value", "random_value", "redirect"])
    rows = {row["edit"]: row for row in editor.rows(0, inputs[:1])}
    assert all(row["effect"] > 1e-4 for row in rows.values())
    assert rows["zero_value"]["token_type"] in ("cls", "bos", "punctuation", "word", "sep")
    cache = editor.replay.run_with_cache(inputs[:1])
    (change,) = [change for change in editor.changes(cache, 0, 0) if change.edit == "random_value"]
    changed = change.change.abs().sum(-1) > 0
    assert changed.tolist() == [name == "Bert" or query >= change.column for query in range(12)]

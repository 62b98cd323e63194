"""Language models through the Python API: token ids take the place of images."""

import pytest
import torch

text_models = pytest.importorskip("text_models")

import transformers  # noqa: E402

import sinkablate as sa  # noqa: E402
from sinkablate.vit.sink_logits import implementations  # noqa: E402


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return text_models.texts(4)[:, 0]


def test_token_ids_are_measured_edited_and_drawn(ids: torch.Tensor) -> None:
    model = text_models.untrained("Bert")
    m = sa.measure(model, ids)
    assert (m.summary["image_count"], m.summary["num_tokens"]) == (4, 12)
    assert m.heads["median_mass"].is_finite().all()
    assert sa.attention_maps(model, ids, heads=[(1, 2)])[1, 2].shape == (4, 12, 12)
    effects = sa.intervene(model, ids, heads=[(1, 2)], edits=["zero_value", "redirect"])
    assert (effects.rows["effect"] > 0).all()
    with pytest.raises(sa.UserError, match=r"^images: there are no token maps, because a text has no patches$"):
        sa.token_maps(model, ids)


def test_a_language_model_with_a_head_is_measured_without_it(ids: torch.Tensor) -> None:
    config = transformers.LlamaConfig(**text_models.SIZE, **text_models.GROUPED)
    chosen = implementations(transformers.LlamaModel)
    model = transformers.LlamaForCausalLM._from_config(config, **chosen).float().eval()
    assert sa.measure(model, ids).heads.equals(sa.measure(model.model, ids).heads)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_texts_are_refused(ids: torch.Tensor, side: str) -> None:
    padded = ids.clone()
    padded[1, 0 if side == "left" else -1] = 0
    message = "images: texts are padded (token 0); pass texts of the same length, without padding"
    with pytest.raises(sa.UserError) as caught:
        sa.measure(text_models.untrained("Bert"), padded)
    assert str(caught.value) == message


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 3, 8)])
def test_images_are_refused_by_a_language_model(shape: tuple[int, ...]) -> None:
    with pytest.raises(sa.UserError, match="BertModel reads texts: expected token ids"):
        sa.measure(text_models.untrained("Bert"), torch.zeros(shape))


def test_padding_with_the_token_that_ends_a_text_is_refused(ids: torch.Tensor) -> None:
    model = text_models.untrained("GPT2", pad_token_id=None, eos_token_id=2)
    ended = ids.clone()
    ended[:, -1] = 2
    sa.measure(model, ended)
    ended[1, -2:] = 2
    with pytest.raises(sa.UserError, match=r"texts are padded \(token 2\)"):
        sa.measure(model, ended)


def test_the_output_of_a_tokenizer_is_measured(ids: torch.Tensor) -> None:
    model = text_models.untrained("Bert")
    encoding = transformers.BatchEncoding({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert sa.measure(model, encoding).heads.equals(sa.measure(model, ids).heads)


@pytest.mark.parametrize(("name", "positions"), [("Bert", 40), ("Roberta", 39), ("Llama", 40)])
def test_texts_longer_than_the_positions_of_the_model_are_refused(name: str, positions: int) -> None:
    with pytest.raises(sa.UserError) as caught:
        sa.measure(text_models.untrained(name), text_models.texts(2, 41))
    message = f"images: the texts have 41 tokens, but {name}Model has only {positions} positions; truncate them"
    assert str(caught.value) == message


def test_token_ids_that_the_model_does_not_know_are_refused(ids: torch.Tensor) -> None:
    with pytest.raises(sa.UserError, match=r"token ids must be from 0 to 49, got .* use the tokenizer of this model"):
        sa.measure(text_models.untrained("Bert"), ids + 30)


@pytest.mark.parametrize("texts", [["a cat", "a dog"], "builtin"])
def test_plain_texts_are_refused_with_advice(texts: list[str] | str) -> None:
    with pytest.raises(sa.UserError, match="BertModel reads texts: give token ids"):
        sa.measure(text_models.untrained("Bert"), texts)


def test_one_text_is_measured_and_has_no_donors(ids: torch.Tensor) -> None:
    model = text_models.untrained("Llama")
    assert sa.measure(model, ids[:1]).summary["image_count"] == 1
    with pytest.raises(sa.UserError, match="come from other images or texts, but there is only one"):
        sa.intervene(model, ids[:1], heads=[(1, 0)], edits=["donor_value"])

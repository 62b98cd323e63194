"""Language models of transformers under the same tap: every family is rebuilt and measured exactly, or refused."""

from typing import Any

import numpy as np
import pytest
import torch
from direct import direct
from families import hook_count
from tapping import tapped

transformers = pytest.importorskip("transformers")

from text_models import DECODERS, GROUPED, MODELS, texts, untrained  # noqa: E402

from sinkablate.config import ThresholdConfig  # noqa: E402
from sinkablate.diagnostics.heads import measure  # noqa: E402
from sinkablate.diagnostics.probe import record  # noqa: E402
from sinkablate.diagnostics.tables import block_table  # noqa: E402
from sinkablate.errors import UserError  # noqa: E402
from sinkablate.vit.anatomy import block_parts, family_of  # noqa: E402
from sinkablate.vit.queries import sharpen  # noqa: E402
from sinkablate.vit.tokens import TextTokenType, TokenLayout, TokenType  # noqa: E402

T = ThresholdConfig()
FAMILY = {
    "Bert": "BERT",
    "Roberta": "BERT",
    "Electra": "BERT",
    "Esm": "BERT with norms before its maps",
    "NomicBert": "Nomic BERT",
    "EuroBert": "EuroBERT",
    "SiglipText": "SigLIP's text encoder",
    "DistilBert": "DistilBERT",
    "ModernBert": "ModernBERT",
    "ModernBertDecoder": "ModernBERT decoder",
    "GPT2": "GPT-2",
    "GPTBigCode": "GPT BigCode",
    "OPT": "OPT",
    "CLIPText": "CLIP's text encoder",
    "GPTNeoX": "GPT-NeoX",
}
"""The others belong to the family Llama."""
WINDOWED = ("ModernBert", "ModernBertDecoder", "Mistral", "GptOss")
"""Models in which some block attends only to nearby tokens."""


@pytest.mark.parametrize("name", MODELS)
def test_every_family_is_rebuilt_once_per_block(name: str) -> None:
    model, inputs = untrained(name), texts(causal=name in DECODERS)
    with torch.no_grad():
        plain = model(input_ids=inputs[:, 0], output_hidden_states=True)
    before = hook_count(model)
    views, outputs, errors = tapped(model, inputs)
    assert family_of(model).name == FAMILY.get(name, "Llama")
    assert list(errors) == [0, 1]
    assert max(errors.values()) < 1e-5
    for view in views:
        assert view.layout == TokenLayout(0, 0, 12)
        assert torch.equal(view.token_types, inputs[:, 1])
        assert view.weights().std(-1).max() > 0.01, "uniform rows would prove nothing"
    assert torch.equal(outputs[0], plain.hidden_states[1])
    assert hook_count(model) == before


@pytest.mark.parametrize("name", MODELS)
def test_the_weights_are_those_of_the_explicit_path(name: str) -> None:
    inputs = texts(causal=name in DECODERS)
    with torch.no_grad():
        explicit = untrained(name, attention="eager")(input_ids=inputs[:, 0], output_attentions=True).attentions
    for view, weights in zip(tapped(untrained(name), inputs)[0], explicit, strict=True):
        torch.testing.assert_close(view.weights()[..., :12], weights, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_every_quantity_equals_its_definition_in_float64(name: str) -> None:
    model = untrained(name).double()
    if family_of(model).qkv or family_of(model).query:
        sharpen(model, 4)
    views, _, _ = tapped(model, texts(length=20, causal=name in DECODERS))
    assert [view.visible is not None for view in views] == [name in DECODERS, name in DECODERS or name in WINDOWED]
    for view in views:
        measured, expected = measure(view, T).heads, direct(view, T)
        assert measured.keys() == expected.keys()
        for quantity, x in measured.items():
            np.testing.assert_allclose(x.numpy(), expected[quantity], rtol=1e-9, atol=1e-10, err_msg=quantity)


@pytest.mark.parametrize("name", ["Llama", "Mistral"])
def test_the_sink_of_a_causal_text_is_never_one_of_its_last_tokens(name: str) -> None:
    """The last token has one query, itself: it would be the sink of every head whose tokens attend to themselves."""
    model = untrained(name)
    model.layers[0].self_attn.q_proj.weight.data.copy_(model.layers[0].self_attn.k_proj.weight.repeat(2, 1) * 9)
    view = tapped(model, texts(length=20, causal=True))[0][0]
    columns = (view.weights().sum(-2) / view.visible.sum(0)).argmax(-1)
    assert (columns == 19).any()
    least = view.visible.sum(0).amax() / 2
    assert (view.visible.sum(0)[measure(view, T).heads["sink_idx"]] >= least).all()


def test_chance_is_the_share_of_a_type_among_the_columns_that_can_be_dominant() -> None:
    """At least half of 20 queries can attend to the columns 0 to 10, and to the sink logit of a head."""
    inputs = texts(length=20, causal=True)
    for name, extra in (("Llama", 0), ("GptOss", 1)):
        records = record(untrained(name), [inputs], T)[0]
        table = block_table(records, T)
        full = 1 if name == "GptOss" else 0  # the first block of GptOss attends to the 6 nearest tokens only
        for kind in TextTokenType:
            for label, last in (("chance", 11), ("columns", 20)):
                counts = (inputs[:, 1, :last] == kind).sum(-1).numpy() + extra * (kind == TextTokenType.NULL)
                expected = np.mean(counts / (last + extra))
                assert table[f"{label}_{kind.label}"][full] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["Llama", "GptOss"])
def test_grouped_heads_share_values_and_have_their_own_slice_of_the_output_map(name: str) -> None:
    model = untrained(name)
    for view, layer in zip(tapped(model, texts(causal=True))[0], model.layers, strict=True):
        assert torch.equal(view.v[:, 0], view.v[:, 1])
        assert not torch.equal(view.v[:, 1], view.v[:, 2])
        assert torch.equal(view.out_map[1], layer.self_attn.o_proj.weight[:, 16:32])


def test_a_sink_logit_is_a_column_that_writes_nothing() -> None:
    model = untrained("GptOss")
    for layer in model.layers:
        layer.self_attn.sinks.data.fill_(9.0)
    records, _ = record(model, [texts(causal=True)], T)
    assert (records.heads["sink_type"] == TokenType.NULL).all()
    assert (records.heads["ratio_out"] == 0).all()
    assert (records.heads["null_mass"] > 0.5).all()
    assert records.kinds is TextTokenType


def test_a_null_column_does_not_hide_the_tokens_of_a_local_attention() -> None:
    """Every query can attend to the null column, but only 6 queries to a token."""
    model = untrained("GptOss")
    for layer in model.layers:
        layer.self_attn.sinks.data.fill_(-9.0)
    records, _ = record(model, [texts(length=20, causal=True)], T)
    assert (records.heads["sink_type"] != TokenType.NULL).all()


def test_conv1d_maps_are_transposed() -> None:
    model = untrained("GPT2")
    parts = block_parts(model, 0)
    x = torch.randn(3, 48)
    torch.testing.assert_close(x @ parts.out_weight.T + parts.out_bias, parts.proj(x))


def test_texts_of_different_lengths_are_merged() -> None:
    model = untrained("Bert")
    short, long = texts(2, 9), texts(3, 12)
    records, _ = record(model, [short, long], T)
    alone, _ = record(model, [short], T)
    assert records.layout.num_tokens == 12
    assert records.token_types.shape == (5, 12)
    assert (records.token_types[:2, 9:] == -1).all()
    assert np.isnan(records.norms[:2, :, 9:]).all()
    for name, values in alone.heads.items():
        np.testing.assert_array_equal(records.heads[name][:2], values, err_msg=name)
    np.testing.assert_array_equal(records.norms[:2, :, :9], alone.norms)


def test_mass_by_token_type_adds_up() -> None:
    records, _ = record(untrained("Bert"), [texts(3)], T)
    assert set(records.mass) == {"cls", "null", "bos", "sep", "punctuation", "word"}
    total = sum(np.nan_to_num(mass) for mass in records.mass.values())
    np.testing.assert_allclose(total, 1, rtol=1e-5)
    assert np.isnan(records.mass["bos"]).all()


NARROW = {"d_model": 48, "d_kv": 12, "d_ff": 64, "num_layers": 2, "num_heads": 4}
PARALLEL = "attention and the MLP of a block read the same input"


@pytest.mark.parametrize(
    ("name", "fields", "says"),
    [
        ("Gemma2", GROUPED, r"Gemma2Model \(Gemma2DecoderLayer\) cannot be measured: a norm after W_O rescales"),
        ("Glm4", GROUPED, "a norm after W_O rescales"),
        ("T5", NARROW, "T5Model cannot be measured: an encoder-decoder has two stacks"),
        ("MPNet", {}, "a relative position bias is added to the attention scores"),
        ("Bloom", {"n_head": 4, "n_layer": 2}, r"a bias for distance \(ALiBi\) is added"),
        ("DebertaV2", {}, "a sum of terms for content and for relative positions"),
        ("Albert", {"embedding_size": 48}, "all blocks share one set of weights"),
        ("Phi", {}, PARALLEL),
        ("Falcon", {}, PARALLEL),
        ("GPTNeoX", {"use_parallel_residual": True}, PARALLEL),
        ("RoFormer", {"embedding_size": 48}, "its attention is computed without scaled_dot_product_attention"),
        ("FNet", {}, "its blocks have no attention"),
        ("Flaubert", {"emb_dim": 48, "n_layers": 2, "n_heads": 4}, "are in separate lists, not in blocks"),
    ],
)
def test_families_that_cannot_be_measured_are_refused_for_the_reason(
    name: str, fields: dict[str, Any], says: str
) -> None:
    model = untrained(name, attention="eager", **fields)
    with pytest.raises(UserError, match=says):
        tapped(model, texts(causal=True))
    assert hook_count(model) == 0


def test_an_encoder_of_an_encoder_decoder_is_refused_for_its_own_reason() -> None:
    encoder = transformers.T5EncoderModel(transformers.T5Config(vocab_size=50, **NARROW))
    with pytest.raises(UserError, match="T5EncoderModel cannot be measured: a relative position bias"):
        tapped(encoder, texts())


def test_attention_that_is_not_fused_is_refused_and_named() -> None:
    with pytest.raises(UserError, match=r"BertSelfAttention cannot be measured: block 0 made 0 calls"):
        tapped(untrained("Bert", attention="eager"), texts())

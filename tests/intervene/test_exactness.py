"""Edits are exact in float64 on every family, gate and mechanism, and the check detects those that are not."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from edited import MECHANISMS, editor_of, own
from families import FAMILIES, family, pictures
from torch import Tensor
from variants import noise

from sinkablate.config import AttentionConfig, PathwayConfig
from sinkablate.errors import UserError
from sinkablate.intervene import exactness, sites
from sinkablate.intervene.changes import Change, change_of_value
from sinkablate.intervene.editor import updates
from sinkablate.intervene.exactness import check_exactness
from sinkablate.intervene.replay import Replay

EXACT = exactness.MAX_ERROR
HUGGING_FACE = ("ViT", "Dinov2WithRegisters", "CLIPVision", "SiglipVision", "DINOv3ViT")
ENCODERS = ("Bert", "Roberta", "Esm", "DistilBert", "ModernBert")
DECODERS = ("GPT2", "Llama", "OPT", "Qwen3", "Gemma", "Mistral", "GptOss")


def error_of(model: Any, images: Tensor, blocks: int = 2, heads: int = 2) -> float:
    editor = editor_of(model, images, [(block, head) for block in range(blocks) for head in range(heads)])
    return check_exactness(editor, 0, images[:1])


@pytest.mark.parametrize("name", FAMILIES)
def test_edits_are_exact_in_every_family(name: str) -> None:
    model = family(name)
    assert error_of(model, pictures(model, 3)) < EXACT


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_edits_are_exact_in_transformers(name: str) -> None:
    transformers_models = pytest.importorskip("hugging_face")
    assert error_of(transformers_models.untrained(name), noise(3, 3, 32, 32)) < EXACT


@pytest.mark.parametrize("name", [*ENCODERS, *DECODERS])
def test_edits_are_exact_in_language_models(name: str) -> None:
    """Also in a post-norm block, for one of the heads that share a value, and under a causal or local mask."""
    text_models = pytest.importorskip("text_models")
    assert error_of(text_models.untrained(name), text_models.texts(3, causal=name in DECODERS)) < EXACT


@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("name", MECHANISMS)
def test_edits_are_exact_under_every_mechanism(name: str, registers: int) -> None:
    assert error_of(own(MECHANISMS[name], registers=registers), noise(3, 1, 28, 28)) < EXACT


def test_edits_are_exact_next_to_a_pathway() -> None:
    model = own(AttentionConfig(gate="headwise"), pathway=PathwayConfig(kind="global"))
    assert error_of(model, noise(3, 1, 28, 28)) < EXACT


def test_a_global_state_is_replaced_where_the_model_computes_it() -> None:
    model = own(AttentionConfig(), pathway=PathwayConfig(kind="global")).double()
    images = noise(3, 1, 28, 28, dtype=torch.float64)
    editor = editor_of(model, images, [(0, 0)], ("pathway",))
    replay = Replay(model, [0, 1])
    with torch.no_grad():
        cache = replay.run_with_cache(images[:1])
        changes = editor.changes(cache, 0, 1)
        assert [change.edit for change in changes] == ["pathway_zero", "pathway_mean", "pathway_donor"]
        replayed = replay.from_block(cache, 1, *updates(model, cache, 1, changes))
        pathway = model.blocks[1].pathway
        given = pathway.state(cache.pathway_inputs[1])
        for change, output in zip(changes, replayed[1:], strict=True):
            pathway.state = lambda x, g=given + change.change: g
            torch.testing.assert_close(model.norm(output[None]), model.forward_features(images[:1]))


@pytest.mark.parametrize("broken", ["gate", "map", "replay"])
def test_the_check_detects_wrong_edits(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = own(AttentionConfig(gate="headwise")), noise(3, 1, 28, 28)
    editor = editor_of(model, images, [(0, 0), (1, 1)])
    if broken == "gate":

        def ungated(view: Any, *args: Any) -> Tensor:
            return change_of_value(replace(view, gate=None), *args)

        monkeypatch.setattr(sites, "change_of_value", ungated)
    elif broken == "map":

        def twice(*args: Any) -> Any:
            attention, pathway = updates(*args)
            return attention + (attention - attention[:1]) * 1e-6, pathway

        monkeypatch.setattr(exactness, "updates", twice)
    else:
        run = Replay._call
        monkeypatch.setattr(Replay, "_call", lambda self, cache, index, x: run(self, cache, index, x) * (1 + 1e-7))
    with pytest.raises(UserError, match="would not describe this model"):
        check_exactness(editor, 0, images[:1])


def test_only_redirect_replaces_no_value() -> None:
    model, images = own(AttentionConfig()), noise(3, 1, 28, 28)
    editor = editor_of(model, images, [(1, 1)])
    with torch.no_grad():
        changes: list[Change] = editor.changes(Replay(model, [1]).run_with_cache(images[:1]), 0, 1)
    assert {change.edit for change in changes if change.column is None} == {"redirect"}

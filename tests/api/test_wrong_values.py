"""Wrong values of `create_model`, `ThresholdConfig`, `compare` and `load_run` are refused in one line."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from refusals import SMALL, refused

import sinkablate as sa

FRAME = pl.DataFrame(
    {"gate": ["none", "none", "headwise", "headwise"], "seed": [0, 1, 0, 1], "acc": [0.1, 0.2, 0.3, 0.5]}
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate": None}, "gate=None: expected none or headwise or elementwise"),
        ({"gate": ["headwise"]}, "gate=['headwise']: expected none or headwise"),
        ({"gate": "Headwise"}, "gate='Headwise'"),
        ({"gate": "headwise", "gate_position": "G1"}, "gate_position='G1'"),
        ({"pathway": "globl"}, "pathway='globl': expected none or global"),
        ({"registers": True}, "registers=True: expected int"),
        ({"registers": "4"}, "registers='4': expected int"),
        ({"score": "sigmoid", "sigmoid_bias": "foo"}, "sigmoid_bias='foo'"),
        ({"in_chans": 0}, "in_chans must be at least 1, got 0"),
        ({"num_classes": "3"}, "num_classes='3': expected int or None"),
        ({"seed": None}, "seed=None: expected int"),
        ({"pretrained": "no"}, "pretrained='no': expected bool"),
        ({"name": 3}, "name=3: expected str"),
    ],
    ids=str,
)
def test_a_value_that_an_option_does_not_take_is_refused(options: dict[str, Any], message: str) -> None:
    with refused(message):
        sa.create_model(**{"name": "vit_mini", **options})


def test_numpy_numbers_are_numbers() -> None:
    model: Any = sa.create_model("vit_mini", registers=np.int64(2), drop_path_rate=np.float32(0.5), **SMALL)
    assert model.num_reg_tokens == 2
    assert sa.ThresholdConfig(def1_eps=[0.2], event_min=1).event_min == 1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"event_min": "0.5"}, "event_min='0.5': expected float"),
        ({"def1_eps": 0.5}, "def1_eps=0.5: expected a list of float"),
        ({"group_top_k": 2.5}, "group_top_k=2.5: expected int"),
        ({"outlier_norm": "x"}, "outlier_norm='x': expected float or None"),
    ],
    ids=str,
)
def test_thresholds_of_another_type_are_refused(options: dict[str, Any], message: str) -> None:
    with refused(message):
        sa.ThresholdConfig(**options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"frame": [1]}, "frame is a list: expected a polars or pandas table"),
        ({"frame": FRAME.lazy()}, "frame is a LazyFrame: expected a polars or pandas table"),
        ({"frame": FRAME[:0]}, "frame: the table has no rows"),
        ({"metric": 3}, "metric=3: expected str"),
        ({"metric": "ac"}, "metric=ac: no such column; did you mean acc?"),
        ({"factors": "gate"}, "factors='gate': expected a list of str"),
        ({"factors": ["gates"]}, "factors=gates: no such column; did you mean gate?"),
        ({"factors": []}, "factors: is empty"),
        ({"baseline": "none"}, "baseline='none': expected a dict or None"),
        ({"baseline": {"gate": 0}}, "baseline: gate has no level 0"),
        ({"pair_by": 3}, "pair_by=3: expected str or None"),
        ({"primary": "t"}, "primary='t': expected paired or welch"),
        ({"margin": "0.1"}, "margin='0.1': expected float or None"),
        ({"margin": -1}, "margin=-1: must be a number above 0"),
        ({"lower_is_better": "no"}, "lower_is_better='no': expected bool"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_tables_that_cannot_be_compared_are_refused(words: dict[str, Any], message: str) -> None:
    with refused(message):
        sa.compare(**{"frame": FRAME, "metric": "acc", "factors": ["gate"], **words})


@pytest.mark.parametrize(
    ("directory", "message"), [(None, "directory=None"), (3, "directory=3"), ("no", "run=no holds")]
)
def test_what_is_not_a_run_is_refused(directory: Any, message: str, tmp_path: Path) -> None:
    with refused(message):
        sa.load_run(directory)
    with refused(f"run={tmp_path} holds no config.yaml"):
        sa.load_run(tmp_path)


def test_a_misspelled_threshold_is_named_and_the_help_explains_every_field() -> None:
    with pytest.raises(ValueError, match=r"^nop_mx: ThresholdConfig has no such field; did you mean nop_max\?$"):
        sa.ThresholdConfig(nop_mx=0.1)  # type: ignore[call-arg]
    for field in fields(sa.ThresholdConfig):
        assert f"\n        {field.name}: " in str(sa.ThresholdConfig.__doc__)

"""Models with test-time registers are diagnosed, edited and evaluated as models with registers, under another name."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hugging_face import untrained
from PIL import Image
from running import Outcome, assert_refused, run, summary
from sharing import Once

from sinkablate.config import ModelChoice, RegisterNeuronConfig
from sinkablate.diagnose.hugging_face import load_hugging_face
from sinkablate.diagnose.model import load_timm
from sinkablate.diagnose.test_time_registers import with_test_time_registers
from sinkablate.vit.tokens import register_count

MINI = ("--backbone.name", "vit_mini", "--backbone.pretrained", "false", "--images", "builtin", "--limit", "3")
ONE = ("--test_time_registers", "1")


def diagnose(out: Path, *words: str | Path) -> Outcome:
    return run("diagnose", "--device", "cpu", "--out", out, *words)


@pytest.fixture(scope="module")
def treated(once: Once) -> Path:
    """A diagnosis of a small timm model with one register; tests must not change it."""

    def write(root: Path) -> None:
        outcome = diagnose(root / "out", *MINI, *ONE, "--register_neurons.top", "4").succeeded()
        assert "model: vit_mini, 1 test-time register, weights" in outcome.out
        assert "test-time registers: 4 neurons in block" in outcome.out

    return once("treated", write) / "out"


def test_the_registers_count_as_registers(treated: Path) -> None:
    content = summary(treated)
    assert (content["num_prefix_tokens"], content["num_tokens"]) == (2, 18)
    assert content["rebuild_error"] < 1e-5
    assert {"count": 1, "top": 4, "choice": "largest", "images": "builtin"}.items() <= content[
        "test_time_registers"
    ].items()
    assert len(content["register_neurons"]["neurons"]) == 4
    assert pl.read_parquet(treated / "blocks.parquet")["mass_register"].is_finite().all()
    with np.load(treated / "token_maps.npz") as maps:
        assert list(maps["prefix_types"]) == ["cls", "register"]
        assert not maps["prefix_norms"][:, 0, 1].any()  # zero before the first block


def test_results_with_and_without_registers_are_not_mixed(treated: Path) -> None:
    assert_refused(diagnose(treated, *MINI), "test_time_registers", "--overwrite")
    random = ("--register_neurons.top", "4", "--register_neurons.choice", "random")
    assert_refused(diagnose(treated, *MINI, *ONE, *random), "test_time_registers", "--overwrite")


def test_other_neurons_are_another_treatment(tmp_path: Path) -> None:
    """The images under the same name may have changed, and with them the neurons."""
    descriptions = []
    for level in (20, 220):
        Image.effect_noise((40, 40), level).save(tmp_path / "image.png")
        loaded = load_timm(ModelChoice(name="vit_mini", pretrained=False))
        config = RegisterNeuronConfig(images=str(tmp_path))
        descriptions.append(with_test_time_registers(loaded, 1, config, torch.device("cpu")).description)
    first, second = (description["test_time_registers"] for description in descriptions)
    assert first["images"] == second["images"]
    assert first["neurons"] != second["neurons"]


def test_edits_of_heads_are_exact_with_registers(treated: Path, tmp_path: Path) -> None:
    words = ("--heads", "1:0,3:1", "--edits", "mean_value,redirect", "--control_images", "2", "--diagnosis", treated)
    neurons = ("--register_neurons.top", "4")
    run("intervene", "--device", "cpu", "--out", tmp_path / "edits", *MINI, *ONE, *neurons, *words).succeeded()
    assert set(pl.read_parquet(tmp_path / "edits" / "rows.parquet")["edit"]) == {"mean_value", "redirect"}
    assert_refused(
        run("intervene", "--device", "cpu", "--out", tmp_path / "other", *MINI, *words), "test_time_registers"
    )


def test_a_model_of_transformers_has_registers_and_a_control(tmp_path: Path) -> None:
    untrained("Dinov2").save_pretrained(tmp_path / "model")
    names = set()
    for choice in ("largest", "random"):
        config = RegisterNeuronConfig(top=4, choice=choice, limit=2)
        loaded = load_hugging_face(str(tmp_path / "model"))
        treated = with_test_time_registers(loaded, 2, config, torch.device("cpu"))
        assert register_count(treated.model) == 2
        assert treated.register_neurons is not None
        names |= set(treated.register_neurons.neurons)
    assert len(names) == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--test_time_registers", "-1"), "test_time_registers must be at least 0, got -1"),
        (("--register_neurons.top", "3"), "register_neurons has no effect without test-time registers"),
        ((*ONE, "--register_neurons.top", "0"), "register_neurons.top must be at least 1, got 0"),
        ((*ONE, "--register_neurons.blocks", "[9]"), "register_neurons.blocks: 9 is outside the model's 4 blocks"),
        ((*ONE, "--register_neurons.images", "nowhere"), "register_neurons.images=nowhere: no such file or folder"),
    ],
)
def test_wrong_options_are_refused(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    assert_refused(diagnose(tmp_path / "out", *MINI, *words), message)
    assert not (tmp_path / "out").exists()


def test_models_that_cannot_have_registers_are_refused(finished: Path, tmp_path: Path) -> None:
    message = "test_time_registers: the model has 4 registers of its own; leave the option out"
    assert_refused(diagnose(tmp_path / "out", "--run", finished, *ONE), message)
    reg4 = ("--backbone.name", "vit_small_patch14_reg4_dinov2", "--backbone.pretrained", "false")
    assert_refused(diagnose(tmp_path / "out", *reg4, "--backbone.img_size", "28", "--images", "builtin", *ONE), message)
    beit = ("--backbone.name", "beit_base_patch16_224", "--backbone.pretrained", "false")
    assert_refused(diagnose(tmp_path / "out", *beit, "--images", "builtin", *ONE), "in its own way")
    assert not (tmp_path / "out").exists()

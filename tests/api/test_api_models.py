"""`create_model` and `load_run`."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from polars.testing import assert_frame_equal

import sinkablate as sa


def test_every_mechanism_has_a_keyword() -> None:
    small = {"embed_dim": 32, "num_heads": 2, "depth": 2}
    model: Any = sa.create_model(
        score="sigmoid", sigmoid_bias="learned", gate="elementwise", gate_position="value", registers=3, **small
    )
    config = model.blocks[1].attn.config
    assert (config.score, config.sigmoid_bias, config.gate, config.gate_position) == (
        "sigmoid",
        "learned",
        "elementwise",
        "value",
    )
    assert model.num_reg_tokens == 3
    changed: Any = sa.create_model(pathway="global", pathway_width=7, **small)
    assert changed.blocks[0].pathway.config.width == 7
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_create_model_builds_the_model_that_fit_trains(finished: Path) -> None:
    trained = sa.load_run(finished)
    new = sa.create_model("vit_mini", gate="headwise", registers=4, seed=trained.config["seed_everything"])
    assert {name: tensor.shape for name, tensor in new.state_dict().items()} == {
        name: tensor.shape for name, tensor in trained.model.state_dict().items()
    }
    assert trained.config["variant"] == "gate_reg"
    assert trained.images.shape == (trained.config["diagnostics"]["images"], 1, 28, 28)
    assert trained.transform is not None


def test_the_transform_of_a_run_prepares_images_as_in_training(finished: Path) -> None:
    from skimage import __file__ as skimage

    trained = sa.load_run(finished)
    path = Path(skimage).parent / "data" / "camera.png"
    assert trained.transform is not None
    tensor = trained.transform(Image.open(path).convert("L"))[None]
    assert_frame_equal(sa.measure(trained.model, [path]).heads, sa.measure(trained.model, tensor).heads)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gat": "headwise"}, "gat=headwise: create_model has no such option; did you mean gate?"),
        ({"name": "vit_smal_patch16_224"}, "did you mean vit_small_patch16_224"),
        ({"score": "relu", "sink": "zero"}, "sink=zero needs"),
    ],
)
def test_models_that_cannot_be_created_are_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        sa.create_model(**options)
    assert "\n" not in str(caught.value)

"""The scenes that come with the package: what they contain, and that they are a function of their number."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from running import CONFIGS, assert_refused, fit, run

from sinkablate.config import SourceConfig
from sinkablate.data.datamodule import ImageData
from sinkablate.data.scenes import GARMENT_NAMES, SCENES, SceneRecords, draw_scene, silhouette


def test_a_scene_is_a_function_of_its_number() -> None:
    np.random.seed(0)
    torch.manual_seed(0)
    states = np.random.get_state()[1].copy(), torch.get_rng_state()
    scenes = [draw_scene("train", index) for index in (3, 4, 3)]
    assert (np.random.get_state()[1] == states[0]).all()
    assert torch.equal(torch.get_rng_state(), states[1])
    assert all(np.array_equal(a, b) for a, b in zip(scenes[0], scenes[2], strict=True))
    for other in (scenes[1], draw_scene("val", 3), draw_scene("train", 3, seed=1)):
        assert not np.array_equal(other.image, scenes[0].image)


@pytest.mark.parametrize("split", SCENES)
def test_masks_boxes_and_labels_agree(split: str) -> None:
    counts = set()
    for index in range(60):
        image, mask, boxes, target = draw_scene(split, index)
        assert image.shape == mask.shape == (56, 56)
        assert mask.max() <= len(GARMENT_NAMES)
        assert 0.3 < (mask == 0).mean() < 0.98
        inside = np.zeros_like(mask, dtype=bool)
        for left, top, right, bottom in boxes:
            assert 0 <= left < right <= 56
            assert 0 <= top < bottom <= 56
            assert mask[top:bottom, left].any()  # the edges of a box touch its garment
            assert mask[bottom - 1, left:right].any()
            inside[top:bottom, left:right] = True
        assert (mask[~inside] > 0).sum() < 16 * 4  # garments without a box are nearly hidden
        assert target + 1 in mask
        counts.add(len(boxes))
    assert counts >= {2, 3, 4, 5}


def test_a_silhouette_includes_dark_prints_and_leaves_out_gaps() -> None:
    garment = np.zeros((7, 7), np.uint8)
    garment[1:6, 1:6] = 200
    garment[2, 2] = 0  # enclosed: a dark print
    garment[3:, 3] = 0  # open below: the gap between two legs
    expected = np.zeros((7, 7), bool)
    expected[1:6, 1:6] = True
    expected[3:, 3] = False
    assert np.array_equal(silhouette(garment), expected)


def test_training_and_validation_scenes_share_no_garment() -> None:
    train, val = SceneRecords("train"), SceneRecords("val")
    assert (len(train), len(val)) == (10_000, 500)
    assert train[0].key == "scene_00000"
    assert train[7] is train[7]
    assert len(val.labels) == 500
    assert val.labels[499] == val[499].target
    assert val.digest() == SceneRecords("val").digest()


def test_the_shipped_config_normalizes_scenes() -> None:
    data = ImageData(source=SourceConfig(format="scenes"))
    assert data.num_classes == 10
    pixels = np.stack([draw_scene("train", index).image for index in range(300)]) / 255
    text = (CONFIGS / "data" / "scenes.yaml").read_text(encoding="utf-8")
    mean, std = (float(text.split(f"{name}: [")[1].split("]")[0]) for name in ("mean", "std"))
    assert abs(pixels.mean() - mean) < 0.01
    assert abs(pixels.std() - std) < 0.01


@pytest.mark.parametrize("model", ["vit_mini", "vit_mini_p4_d8"])
def test_fit_trains_on_scenes(model: str, tmp_path: Path) -> None:
    configs = [CONFIGS / "data" / "scenes.yaml", CONFIGS / "model" / f"{model}.yaml"]
    fit(tmp_path / "run", "--diagnostics.every_n_steps=0", configs=configs).succeeded()


def test_the_number_of_training_scenes_is_known_to_plan() -> None:
    planned = json.loads(run("plan", "--config", CONFIGS / "data" / "scenes.yaml", "--json").succeeded().out)
    assert planned["images"] == len(SceneRecords("train"))


def test_scenes_have_no_path(tmp_path: Path) -> None:
    outcome = fit(tmp_path / "run", "--data.source.train=/data", configs=[CONFIGS / "data" / "scenes.yaml"])
    assert_refused(outcome, "data.source.train=/data has no effect with format=scenes")

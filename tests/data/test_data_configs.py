import json
from dataclasses import asdict
from pathlib import Path

import pytest
from dense_sets import write_folders
from omegaconf import DictConfig, OmegaConf
from running import assert_refused, run
from shard_sets import write_set

from sinkablate.config import AugmentConfig, ImageConfig, SourceConfig
from sinkablate.data.datamodule import ImageData
from sinkablate.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "data"


def build(name: str) -> ImageData:
    config = OmegaConf.load(CONFIGS / f"{name}.yaml")
    assert isinstance(config, DictConfig)
    (values,) = OmegaConf.to_container(config, resolve=True).values()  # type: ignore[union-attr]
    groups = {"source": SourceConfig, "image": ImageConfig, "augment": AugmentConfig}
    return ImageData(**{key: groups[key](**value) if key in groups else value for key, value in values.items()})


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem not in ("embedded", "scenes"))
)
def test_an_unset_location_is_refused_with_its_key_and_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("IMAGENET_TRAIN", "IMAGENET_VAL", "IMAGE_FOLDER_TRAIN", "IMAGE_FOLDER_VAL"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UserError, match=r"data.source.train=\$\w+_TRAIN: the environment variable is not set; set \w+"):
        build(name).setup("fit")


@pytest.mark.parametrize(
    ("name", "key"),
    [("ade20k", "segmentation"), ("voc2012", "segmentation"), ("masks", "segmentation"), ("voc2007", "discovery")],
)
def test_an_unset_folder_of_evaluate_is_refused_with_its_variable(
    name: str, key: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = {"masks": "MASK_FOLDER"}.get(name, name.upper())
    monkeypatch.delenv(variable, raising=False)
    words = ("--run", finished, "--tasks", key, "--out", tmp_path / "out", "--device", "cpu")
    outcome = run("evaluate", "--config", CONFIGS / "dense" / f"{name}.yaml", *words)
    assert_refused(outcome, f"{key}.data=${variable}: the environment variable is not set; set {variable}")


def test_the_config_of_masks_reads_its_variables(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASK_FOLDER", str(write_folders(tmp_path / "own")))
    monkeypatch.setenv("MASK_CLASSES", "2")
    words = ("--run", finished, "--tasks", "segmentation", "--out", tmp_path / "out", "--device", "cpu")
    quick = ("--segmentation.size", "28", "--segmentation.epochs", "1", "--floors", "false", "--format", "json")
    outcome = run("evaluate", "--config", CONFIGS / "dense" / "masks.yaml", *words, *quick).succeeded()
    settings = json.loads(outcome.out)["tasks"]["segmentation"]["segmentation"]
    assert (settings["data"], settings["num_classes"]) == (str(tmp_path / "own"), 2)


def test_the_embedded_config_equals_the_defaults() -> None:
    built, default = build("embedded"), ImageData()
    for name in ("source", "image", "augment"):
        # YAML has lists where Python has tuples
        assert json.dumps(asdict(getattr(built, name))) == json.dumps(asdict(getattr(default, name)))
    for name in ("batch_size", "eval_batch_size", "num_workers"):
        assert getattr(built, name) == getattr(default, name)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_the_imagenet_config_reads_its_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    location = write_set(tmp_path, (8,) * 8, "RGB").train
    monkeypatch.setenv("IMAGENET_TRAIN", location)
    monkeypatch.setenv("IMAGENET_VAL", location)
    data = build("imagenet")
    data.batch_size = 8
    data.setup("fit")
    assert len(data.train_dataloader()) == 8
    assert data.probe_images(2)[0].shape == (2, 3, 224, 224)

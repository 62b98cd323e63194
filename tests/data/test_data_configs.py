import json
from dataclasses import asdict
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
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

"""Labels follow the names of the training classes, in folders and in shards, for every command."""

import dataclasses
import json
import os
from pathlib import Path

import lightning as L
import pytest
from shard_sets import GRAY, png, write_set
from torchvision.datasets import ImageFolder  # type: ignore[import-untyped]

from sinkablate.config import AugmentConfig, SourceConfig
from sinkablate.data.classes import number_of_classes
from sinkablate.data.datamodule import ImageData
from sinkablate.data.folder import FolderRecords
from sinkablate.data.image_files import labeled_files
from sinkablate.data.shards import write_shards
from sinkablate.errors import UserError


def folders(root: Path, *classes: str, images: int = 2) -> Path:
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for image in range(images):
            (root / name / f"{image}.png").write_bytes(png(10 * number + image))
    return root


def labels(records: FolderRecords) -> dict[str, int]:
    return {Path(path).parent.name: label for path, label in zip(records.files, records.labels, strict=True)}


def opened(train: Path, val: Path, num_classes: int | None = None, **more: object) -> ImageData:
    source = SourceConfig(format="folder", train=str(train), val=str(val), num_classes=num_classes)
    data = ImageData(source, GRAY, batch_size=2, **more)  # type: ignore[arg-type]
    data.setup("fit")
    return data


def test_validation_labels_follow_the_names_of_the_training_classes(tmp_path: Path) -> None:
    train = folders(tmp_path / "train", "bird", "cat", "dog")
    data = opened(train, folders(tmp_path / "val", "cat", "dog"))
    assert data.num_classes == 3
    assert {
        key.split("/")[0]: int(target)
        for batch in data.val_dataloader()
        for key, target in zip(batch.key, batch.target, strict=True)
    } == {"cat": 1, "dog": 2}


@pytest.mark.parametrize(
    ("classes", "named"),
    [
        (("cat", "elk"), "elk is not among"),
        (("cat", "elk", "emu"), "elk, emu are not among"),
        (("Cat",), "Cat is not among"),
    ],
)
def test_a_class_outside_the_training_set_is_refused_and_named(
    tmp_path: Path, classes: tuple[str, ...], named: str
) -> None:
    train = folders(tmp_path / "train", "bird", "cat")
    with pytest.raises(UserError, match=rf"data.source.val=.*val: {named} the 2 classes .*bird, cat"):
        opened(train, folders(tmp_path / "val", *classes))


@pytest.mark.parametrize("num_classes", [1, 3, 1000])
def test_another_number_of_classes_is_refused(tmp_path: Path, num_classes: int) -> None:
    train = folders(tmp_path / "train", "bird", "cat")
    with pytest.raises(UserError, match=rf"num_classes={num_classes}: data.source.train=.* has 2 classes \(bird"):
        opened(train, train, num_classes)


def test_the_folder_above_the_splits_is_refused(tmp_path: Path) -> None:
    folders(tmp_path / "train", "bird", "cat")
    folders(tmp_path / "val", "bird", "cat")
    for num_classes in (None, 2):
        with pytest.raises(UserError, match=r"its folders \(train, val\) are splits, not classes; name one of them"):
            opened(tmp_path, tmp_path / "val", num_classes)
    with pytest.raises(UserError, match=r"data.source.val=.*: its folders \(train, val\) are splits"):
        opened(tmp_path / "train", tmp_path)


def test_a_single_class_must_be_intended(tmp_path: Path) -> None:
    train = folders(tmp_path / "set", "only")
    with pytest.raises(UserError, match=r"only one class, only; .*data.source.num_classes=1"):
        opened(train, train)
    assert opened(train, train, 1).num_classes == 1


def test_a_training_class_without_images_is_refused(tmp_path: Path) -> None:
    train = folders(tmp_path / "train", "bird", "cat")
    (train / "dog").mkdir()
    (train / "dog" / "photo.heic").write_bytes(b"x")
    with pytest.raises(UserError, match=r"the class folder dog contains no images \(skipped: not an image .*\.heic"):
        opened(train, train)


def test_hidden_folders_are_not_classes_and_links_are_followed(tmp_path: Path) -> None:
    train = folders(tmp_path / "train", ".ipynb_checkpoints", "__MACOSX", "bird", "cat")
    (train / ".DS_Store").write_bytes(b"x")
    (train / "cat" / "._0.png").write_bytes(b"x")
    (train / "ant").symlink_to(folders(tmp_path / "elsewhere", "ants") / "ants")
    (train / "cat" / "round").symlink_to(train)
    records = FolderRecords(str(train), key="data.source.train")
    assert labels(records) == {"ant": 0, "bird": 1, "cat": 2}
    assert len(records) == 6
    write_shards(str(train), str(tmp_path / "shards"))
    manifest = json.loads((tmp_path / "shards" / "manifest.json").read_text())
    assert manifest == {"shards": {"train-0000.tar": 6}, "classes": records.classes}


def test_files_have_the_order_of_torchvision_image_folder(tmp_path: Path) -> None:
    train = folders(tmp_path / "train", "b", "a", "a-2")
    for name in ("z.png", "d/x.png", "d/e/y.png", "d-2/x.png", "B.PNG", "a b.png"):
        (train / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (train / "a" / name).write_bytes(png(1))
    listing = labeled_files(train, "")
    assert list(zip(listing.files, listing.labels, strict=True)) == ImageFolder(str(train)).samples


def test_a_run_can_be_evaluated_without_its_training_images(tmp_path: Path) -> None:
    val = folders(tmp_path / "val", "bird", "cat")
    source = SourceConfig(format="folder", train=str(tmp_path / "gone"), val=str(val), num_classes=2)
    data = ImageData(source, GRAY)
    data.setup("validate")
    assert len(next(iter(data.val_dataloader())).target) == 4
    with pytest.raises(UserError, match=r"gone: no such directory; .*val does not have all 3 of them"):
        ImageData(dataclasses.replace(source, num_classes=3), GRAY).setup("validate")


def test_a_checkpoint_with_other_classes_is_refused(tmp_path: Path) -> None:
    train = folders(tmp_path / "train", "bird", "cat")
    stored = opened(train, train).state_dict()
    opened(train, train).load_state_dict(stored)
    (train / "cat").rename(train / "ant")
    with pytest.raises(UserError, match=r"class folders differ from those of the checkpoint \(ant, cat\)"):
        opened(train, train).load_state_dict(stored)
    del stored["classes"]  # as in a checkpoint of an older version
    opened(train, train).load_state_dict(stored)


@pytest.mark.parametrize("reader", ["indexed", "stream"])
def test_shards_know_their_classes(tmp_path: Path, reader: str) -> None:
    folders(tmp_path / "src" / "train", "bird", "cat", "dog")
    folders(tmp_path / "src" / "val", "dog", "cat")
    write_shards(str(tmp_path / "src"), str(tmp_path / "out"))
    source = SourceConfig(
        format="shards", train=f"{tmp_path}/out/train-0000.tar", val=f"{tmp_path}/out/val-0000.tar", reader=reader
    )  # type: ignore[arg-type]
    data = ImageData(source, GRAY, batch_size=2)
    data.setup("fit")
    assert data.num_classes == 3
    assert sorted(label for batch in data.val_dataloader() for label in batch.target.tolist()) == [1, 1, 2, 2]
    with pytest.raises(UserError, match=r"num_classes=1000: .*train-0000.tar has 3 classes \(bird, cat, dog\)"):
        ImageData(dataclasses.replace(source, num_classes=1000), GRAY, batch_size=2).setup("fit")
    write_shards(str(tmp_path / "src" / "val"), str(tmp_path / "alone"), split="val")
    alone = dataclasses.replace(source, val=str(tmp_path / "alone"), num_classes=None)
    with pytest.raises(UserError, match=r"num_classes=3: data.source.val=.*alone has 2 classes \(cat, dog\)"):
        ImageData(alone, GRAY, batch_size=2).setup("fit")
    write_shards(str(folders(tmp_path / "other", "ant", "cat", "dog")), str(tmp_path / "ants"), split="val")
    ants = dataclasses.replace(alone, val=str(tmp_path / "ants"))
    with pytest.raises(UserError, match=r"ants: class 0 is ant, but bird in the training shards"):
        ImageData(ants, GRAY, batch_size=2).setup("fit")


def test_packing_checks_and_numbers_classes_as_training_does(tmp_path: Path) -> None:
    folders(tmp_path / "src" / "train", "bird", "cat")
    folders(tmp_path / "src" / "val", "cat", "elk")
    with pytest.raises(UserError, match=r"val: elk is not among the 2 classes"):
        write_shards(str(tmp_path / "src"), str(tmp_path / "out"))
    with pytest.raises(UserError, match=r"val: elk is not among the 2 classes"):
        write_shards(str(tmp_path / "src"), str(tmp_path / "out"), split="val")
    assert sorted(os.listdir(tmp_path)) == ["src"]


def test_shards_without_class_names_need_num_classes(tmp_path: Path) -> None:
    source = dataclasses.replace(write_set(tmp_path, (4, 4)), num_classes=None)
    with pytest.raises(UserError, match=r"data.source.num_classes is not set, and the shards do not specify"):
        number_of_classes(source)
    for content in ("[1]", "{", '{"classes": 3}', '{"classes": [1]}', "{}", "\xff"):
        (tmp_path / "manifest.json").write_text(content, "latin-1")
        with pytest.raises(UserError, match=r"num_classes is not set"):
            number_of_classes(source)
        ImageData(dataclasses.replace(source, num_classes=4), GRAY, batch_size=2).setup("fit")


@pytest.mark.parametrize("num_classes", [0, -1, 2**33, 5])
def test_an_impossible_number_of_classes_is_refused(num_classes: int) -> None:
    with pytest.raises(UserError, match=r"^num_classes"):
        SourceConfig(num_classes=num_classes)


@pytest.mark.parametrize(("size", "batch", "repeats", "dropped"), [(10, 4, 1, 2), (12, 4, 1, 0), (10, 4, 3, 7)])
def test_images_that_an_epoch_leaves_out_are_counted(
    tmp_path: Path, size: int, batch: int, repeats: int, dropped: int
) -> None:
    train = folders(tmp_path / "train", "bird", "cat", images=size // 2)
    data = opened(train, train, augment=AugmentConfig(aug_repeats=repeats))
    data.batch_size = batch
    used = {key for samples in data.train_dataloader() for key in samples.key}
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert data.usage.dropped == dropped == size - len(used)
    assert bool(data.usage.notes(trainer)) == bool(dropped)

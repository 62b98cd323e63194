"""Opens a split of a data set: images that come with the package, shards, or one folder per class."""

from pathlib import Path

from sinkablate.config import SourceConfig
from sinkablate.data.classes import class_names, require_number, require_same
from sinkablate.data.embedded import EMBEDDED_IMAGES, EmbeddedRecords
from sinkablate.data.errors import ErrorPolicy
from sinkablate.data.folder import FolderRecords
from sinkablate.data.image_files import class_folders
from sinkablate.data.locations import expand_location, is_remote, require_location
from sinkablate.data.manifest import read_classes
from sinkablate.data.samples import Records
from sinkablate.data.scenes import LABELED_SCENES, SceneRecords
from sinkablate.data.stream import ShardStream
from sinkablate.data.tar_index import TarRecords
from sinkablate.errors import UserError

TRAINING_IMAGES = {"embedded": EMBEDDED_IMAGES, "scenes": LABELED_SCENES["train"]}
"""Number of training images of the formats whose images come with the package."""


def open_split(source: SourceConfig, split: str, num_classes: int, on_error: ErrorPolicy) -> Records | ShardStream:
    """Open the training, validation or test images; labels of validation and test images follow the training classes.

    Args:
        source: Where the images are and how they are read.
        split: `train`, `val` or `test`.
        num_classes: Number of classes of the model.
        on_error: What happens at an unreadable shard.

    Raises:
        UserError: A path does not exist, or the classes are not those of the training set, or their number is not
            `num_classes`.
    """
    location, key = getattr(source, split), f"data.source.{split}"
    if source.format == "embedded":
        return EmbeddedRecords(split, num_classes=num_classes, on_error=on_error)
    if source.format == "scenes":
        return SceneRecords(split)
    if source.format == "folder":
        return _open_folder(source, location, key, num_classes)
    return _open_shards(source, location, key, num_classes, on_error)


def _open_shards(
    source: SourceConfig, location: str, key: str, num_classes: int, on_error: ErrorPolicy
) -> TarRecords | ShardStream:
    shards = expand_location(location, key)
    remote = next((shard for shard in shards if is_remote(shard)), None)
    if remote and source.reader == "indexed":
        raise UserError(f"{key}={remote}: not a local file; set data.source.reader=stream to read it")
    records = (
        ShardStream(shards, key=key, num_classes=num_classes)
        if source.reader == "stream"
        else TarRecords(shards, num_classes=num_classes, on_error=on_error)
    )
    names, where = read_classes(shards[0]), f"{key}={location}"
    require_number(names, num_classes, where)
    if names and key != "data.source.train" and source.train:
        require_same(names, class_names(source), where)
    return records


def _open_folder(source: SourceConfig, location: str, key: str, num_classes: int) -> FolderRecords:
    if key == "data.source.train":
        records = FolderRecords(location, key=key)
        require_number(records.classes, num_classes, f"{key}={location}")
        return records
    if Path(source.train).is_dir():
        names = class_names(source)
        require_number(names, num_classes, f"data.source.train={source.train}")
        return FolderRecords(location, key=key, classes=names)
    # the training images of a finished run may be elsewhere; a set with the full number of classes has all their names
    require_location(location, key)
    if len(class_folders(location, f"{key}={location}")) != num_classes:
        raise UserError(
            f"data.source.train={source.train}: no such directory; it is needed to number the classes, because "
            f"{key}={location} does not have all {num_classes} of them"
        )
    return FolderRecords(location, key=key)

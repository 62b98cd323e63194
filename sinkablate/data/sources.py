"""Opens a split of a data set: the embedded images, shards or a folder of class folders."""

from pathlib import Path

from sinkablate.config import SourceConfig
from sinkablate.data.classes import class_names, require_number, require_same
from sinkablate.data.embedded import EmbeddedRecords
from sinkablate.data.files import class_folders
from sinkablate.data.folder import FolderRecords
from sinkablate.data.layout import expand, is_remote, require_set
from sinkablate.data.manifest import read_classes
from sinkablate.data.samples import ErrorPolicy, Records
from sinkablate.data.stream import ShardStream
from sinkablate.data.tar_index import TarRecords
from sinkablate.errors import UserError


def open_split(source: SourceConfig, split: str, num_classes: int, faults: ErrorPolicy) -> Records | ShardStream:
    """Open the training, validation or test images; validation and test labels follow the training classes.

    Args:
        source: Where the images are.
        split: `train`, `val` or `test`.
        num_classes: Classes that the model tells apart.
        faults: What an unreadable shard does.

    Raises:
        UserError: A path is missing, or the classes are not those of the training set or not `num_classes`.
    """
    location, key = getattr(source, split), f"data.source.{split}"
    if source.format == "embedded":
        return EmbeddedRecords(split, num_classes=num_classes, faults=faults)
    if source.format == "folder":
        return _open_folder(source, location, key, num_classes)
    return _open_shards(source, location, key, num_classes, faults)


def _open_shards(
    source: SourceConfig, location: str, key: str, num_classes: int, faults: ErrorPolicy
) -> TarRecords | ShardStream:
    shards = expand(location, key)
    remote = next((shard for shard in shards if is_remote(shard)), None)
    if remote and source.reader == "indexed":
        raise UserError(f"{key}={remote} is not local: it needs data.source.reader=stream")
    records = (
        ShardStream(shards, key=key, num_classes=num_classes)
        if source.reader == "stream"
        else TarRecords(shards, num_classes=num_classes, faults=faults)
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
    # a finished run may be evaluated where its training images are not: all classes in number are all in name
    require_set(location, key)
    if len(class_folders(location, f"{key}={location}")) != num_classes:
        raise UserError(
            f"data.source.train={source.train}: no such directory; {key}={location} does not have all "
            f"{num_classes} classes, so that its labels can only follow the names of the training classes"
        )
    return FolderRecords(location, key=key)

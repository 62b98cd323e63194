"""Images in one folder per class, the layout of torchvision's ImageFolder."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from sinkablate.data.errors import DataError
from sinkablate.data.image_files import labeled_files, size_and_time
from sinkablate.data.locations import require_location
from sinkablate.data.samples import Encoded


class FolderRecords:
    """Samples of a directory with one folder per class; labels follow the sorted names of the training folders.

    Args:
        root: Directory with one folder per class.
        key: The configuration key of the directory, for messages.
        classes: The classes of the training set; None if `root` is the training set.

    Raises:
        UserError: The directory does not exist, a class has no images, or a folder is not a training class.
    """

    def __init__(self, root: str, *, key: str, classes: Sequence[str] | None = None) -> None:
        require_location(root, key)
        self.files, self.labels, self.classes, self.skipped = labeled_files(root, f"{key}={root}", classes)
        self.root = Path(root)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Encoded:
        """Read one file.

        Raises:
            DataError: The file cannot be read.
        """
        path = Path(self.files[index])
        key = str(path.relative_to(self.root).with_suffix(""))
        try:
            return Encoded(path.read_bytes(), self.labels[index], key, str(self.root))
        except OSError as error:
            raise DataError(f"{path}: the file cannot be read ({error.strerror})", "unreadable file") from None

    def digest(self) -> str:
        """Return a hash of the names, sizes, times of the last change and labels of all files."""
        content = hashlib.sha256()
        for path, label in zip(self.files, self.labels, strict=True):
            name = Path(path).relative_to(self.root)
            content.update(f"{name}\0{size_and_time(path)}\0{label}\n".encode(errors="surrogateescape"))
        return content.hexdigest()

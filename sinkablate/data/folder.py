"""Images in one folder per class, torchvision's ImageFolder layout."""

from collections.abc import Sequence
from pathlib import Path

from sinkablate.data.files import labeled_files
from sinkablate.data.layout import DataError, require_set
from sinkablate.data.samples import Encoded


class FolderRecords:
    """Samples of a folder of class folders; classes are numbered in the order of the sorted names of the training set.

    Args:
        root: Directory with one folder per class.
        key: The configuration key it comes from, for messages.
        classes: The classes of the training set, if this is another one.

    Raises:
        UserError: No such directory, a class without images, or one that the training set does not have.
    """

    def __init__(self, root: str, *, key: str, classes: Sequence[str] | None = None) -> None:
        require_set(root, key)
        found = labeled_files(root, f"{key}={root}", classes)
        self.files, self.labels, self.classes, self.skipped = found
        self.root = Path(root)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Encoded:
        """Read one file.

        Raises:
            DataError: It cannot be read.
        """
        path = Path(self.files[index])
        key = str(path.relative_to(self.root).with_suffix(""))
        try:
            return Encoded(path.read_bytes(), self.labels[index], key, str(self.root))
        except OSError as error:
            raise DataError(f"{path}: the file cannot be read ({error.strerror})", "unreadable file") from None

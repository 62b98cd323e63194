"""Images in one folder per class, torchvision's ImageFolder layout."""

from pathlib import Path

from torchvision.datasets import ImageFolder  # type: ignore[import-untyped]

from sinkablate.data.layout import DataError, check_label, require_set
from sinkablate.data.samples import Encoded
from sinkablate.errors import UserError


class FolderRecords:
    """Samples of an ImageFolder; classes are numbered in the order of their sorted names.

    Args:
        root: Directory with one folder per class.
        key: The configuration key it comes from, for messages.
        num_classes: Labels must lie below.

    Raises:
        UserError: No such directory, a class without images, or more classes than `num_classes`.
    """

    def __init__(self, root: str, *, key: str, num_classes: int) -> None:
        require_set(root, key)
        if not Path(root).is_dir():
            raise UserError(f"{key}={root}: no such directory")
        try:
            self.samples = ImageFolder(root).samples
        except FileNotFoundError as error:
            raise UserError(f"{key}={root}: needs one folder of images per class ({error})") from None
        self.root = Path(root)
        last, label = self.samples[-1]
        check_label(label, num_classes, last)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Encoded:
        """Read one file.

        Raises:
            DataError: It cannot be read.
        """
        path, target = self.samples[index]
        key = str(Path(path).relative_to(self.root).with_suffix(""))
        try:
            return Encoded(Path(path).read_bytes(), target, key, str(self.root))
        except OSError as error:
            raise DataError(f"{path}: the file cannot be read ({error.strerror})") from None

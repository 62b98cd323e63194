"""The layouts of data sets with pixel masks, as data: where the files of a split are and what a mask's values mean.

To read another data set, add a value to `LAYOUTS`; nothing else changes.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sinkablate.data.image_files import image_files
from sinkablate.errors import UserError
from sinkablate.files.suggestions import first_few

VOC_NAMES = [
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]


def _no_names(_: Path) -> list[str]:
    return []


def _ade20k_names(root: Path) -> list[str]:
    """Read the names of the 150 classes from `objectInfo150.txt`, which the data set comes with."""
    path = root / "objectInfo150.txt"
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    return [line.split("\t")[-1].split(",")[0].strip() for line in lines if line.strip()]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way to store images with pixel masks or boxes. `{split}` in a path stands for the layout's name for a split.

    Ignored pixels have the value 255, and if the first class is 1, also 0.
    """

    name: str
    images: str
    """Folder of the images."""
    masks: str
    """Folder of the masks, which have the names of their images."""
    splits: Mapping[str, str]
    """The layout's names for `train` and `val`."""
    listed: str = ""
    """Text file with the names of the images of a split, one per line; empty if a folder holds one split only."""
    first: int = 1
    """Value of the first class in a mask."""
    background: bool = False
    """Whether the value 0 can be read as a class, the background."""
    num_classes: int | None = None
    """Number of classes without the background; None if the user must give it."""
    names: Callable[[Path], list[str]] = _no_names
    """Returns the names of the classes from the folder of the data set; an empty list if it does not hold them."""
    boxes: str = ""
    """Folder of the XML files with boxes."""
    boxes_listed: str = ""
    """Text file with the names of the images that have boxes."""

    def fits(self, root: Path) -> bool:
        """Whether a folder has this layout."""
        folders = [self.images.format(split=split) for split in self.splits.values()]
        return any((root / folder).is_dir() for folder in folders) and any(
            (root / path.format(split=split)).exists()
            for path in (self.masks, self.boxes)
            if path
            for split in self.splits.values()
        )


LAYOUTS = (
    Layout(
        name="ADE20K",
        images="images/{split}",
        masks="annotations/{split}",
        splits={"train": "training", "val": "validation"},
        num_classes=150,
        names=_ade20k_names,
    ),
    Layout(
        name="VOC",
        images="JPEGImages",
        masks="SegmentationClass",
        splits={"train": "train", "val": "val"},
        listed="ImageSets/Segmentation/{split}.txt",
        background=True,
        num_classes=len(VOC_NAMES),
        names=lambda _: VOC_NAMES,
        boxes="Annotations",
        boxes_listed="ImageSets/Main/trainval.txt",
    ),
    Layout(
        name="folders", images="images/{split}", masks="masks/{split}", splits={"train": "train", "val": "val"}, first=0
    ),
)
"""ADE20K as distributed (ADEChallengeData2016), PASCAL VOC (VOC2007, VOC2012), and any pair of folders."""


@dataclass(frozen=True)
class Pair:
    """The files of one image."""

    key: str
    """Name of the image, without its suffix."""
    image: Path
    annotation: Path
    """The mask, or the XML file with the boxes."""


def layout_of(root: Path, where: str) -> Layout:
    """Return the layout of a folder.

    Args:
        root: The folder.
        where: Names it in messages.

    Raises:
        UserError: It does not exist, or has no known layout.
    """
    if not root.is_dir():
        raise UserError(f"{where}: no such directory")
    for layout in LAYOUTS:
        if layout.fits(root):
            return layout
    below = [path.name for path in sorted(root.iterdir()) if any(layout.fits(path) for layout in LAYOUTS)]
    hint = f"; name the folder {below[0]} in it" if below else ""
    known = ", ".join(f"{x.name} ({x.images} and {x.masks})" for x in LAYOUTS).replace("{split}", "...")
    raise UserError(f"{where}: the layout is unknown; expected {known}{hint}")


def mask_pairs(root: Path, layout: Layout, split: str, where: str) -> list[Pair]:
    """List the images of a split and their masks, sorted by name or in the order of the list of the split.

    Args:
        root: Folder of the data set.
        layout: Its layout.
        split: `train` or `val`.
        where: Names the folder in messages.

    Raises:
        UserError: A folder or list does not exist, is empty, or an image or a mask has no partner.
    """
    own = layout.splits[split]
    images, masks, listed = (text.format(split=own) for text in (layout.images, layout.masks, layout.listed))
    return _pairs(root, images, masks, listed, where)


def box_pairs(root: Path, layout: Layout, where: str) -> list[Pair]:
    """List the images with boxes and the files of the boxes.

    Raises:
        UserError: The layout has no boxes, a folder or list does not exist, or an image has no boxes.
    """
    if not layout.boxes:
        raise UserError(f"{where}: {layout.name} has no boxes; use VOC ({LAYOUTS[1].boxes_listed}) or embedded")
    return _pairs(root, layout.images, layout.boxes, layout.boxes_listed, where, suffix=".xml")


def _pairs(root: Path, images: str, others: str, listed: str, where: str, suffix: str | None = None) -> list[Pair]:
    image_paths, other_paths = _by_name(root / images, where), _by_name(root / others, where, suffix)
    keys = _listed(root / listed, where) if listed else sorted(image_paths.keys() | other_paths.keys())
    for paths, missing, folder in ((image_paths, "image", images), (other_paths, "mask", others)):
        unpaired = [key for key in keys if key not in paths]
        if unpaired:
            kind = "file of boxes" if suffix and missing == "mask" else missing
            raise UserError(
                f"{where}: {len(unpaired)} of {len(keys)} names have no {kind} in {folder} ({first_few(unpaired)}); "
                "an image and its annotation must have the same name"
            )
    if not keys:
        raise UserError(f"{where}: {images} contains no images")
    return [Pair(key, image_paths[key], other_paths[key]) for key in keys]


def _by_name(folder: Path, where: str, suffix: str | None = None) -> dict[str, Path]:
    """Return the image files below a folder, or the files with a suffix in it, by their name without suffix.

    Raises:
        UserError: The folder does not exist, or two images differ in their suffix only.
    """
    if not folder.is_dir():
        raise UserError(f"{where}: {folder} is missing")
    if suffix:
        return {
            entry.name[: -len(suffix)]: Path(entry.path) for entry in os.scandir(folder) if entry.name.endswith(suffix)
        }
    paths: dict[str, Path] = {}
    for file in map(Path, image_files(folder).files):
        key = file.relative_to(folder).with_suffix("").as_posix()
        if key in paths:
            raise UserError(f"{where}: {paths[key]} and {file.name} have the same name; rename one of them")
        paths[key] = file
    return paths


def _listed(path: Path, where: str) -> list[str]:
    """Return the names in a list; further columns of a line are ignored."""
    if not path.is_file():
        raise UserError(f"{where}: {path} is missing")
    return [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]

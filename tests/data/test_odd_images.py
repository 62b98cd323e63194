"""Image files of every kind, in one table that is checked with the readers of both `fit` and `diagnose`."""

import io
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from odd_bytes import DEEP, GRAY, ORIENTED, RGB, gray, oriented, saved
from odd_images import BLURRED, HIDDEN, IGNORED, LOSSY, READ, SKIPPED
from PIL import Image

import sinkablate as sa
from sinkablate.config import ImageConfig, SourceConfig
from sinkablate.data.datamodule import ImageData
from sinkablate.data.errors import DataError
from sinkablate.data.folder import FolderRecords
from sinkablate.data.samples import checked_image
from sinkablate.data.shards import write_shards
from sinkablate.diagnose.images import ImageSource, Preparation
from sinkablate.diagnose.model import LoadedModel
from sinkablate.evaluate.images import class_sets

CONFIG = ImageConfig(size=4, in_chans=3, convert=True, mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One class folder with all of these files, and one with a single image."""
    root = tmp_path_factory.mktemp("corpus")
    folder = root / "odd"
    contents = {name: data for name, (data, _) in {**READ, **SKIPPED}.items()}
    contents |= dict.fromkeys((*IGNORED, *HIDDEN), saved(RGB, "PNG"))
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if data is None:
            (folder / name).symlink_to(root / "nowhere")
        else:
            (folder / name).write_bytes(data)
    (root / "plain").mkdir()
    (root / "plain" / "rgb.png").write_bytes(saved(RGB, "PNG"))
    os.symlink(folder, folder / "loop")
    return root


def test_the_table_has_at_least_a_hundred_files() -> None:
    assert len({**READ, **SKIPPED, **IGNORED}) + len(HIDDEN) >= 100


def assert_pixels(pixels: NDArray[Any], name: str) -> None:
    expected = READ[name][1]
    assert pixels.shape == expected.shape, name
    difference = np.abs(pixels.astype(int) - expected.astype(int))
    if name in BLURRED:
        difference = difference[[0, 1, 2, -3, -2, -1]][:, [0, 1, 2, -3, -2, -1]]
    assert difference.max() <= (6 if name in LOSSY | BLURRED else 0), (name, difference.max())


def test_fit_reads_each_file_correctly_or_reports_why_not(corpus: Path) -> None:
    records = FolderRecords(str(corpus), key="data.source.train")
    results: dict[str, Any] = {}
    messages: dict[str, str] = {}
    for index in range(len(records)):
        name = Path(records.files[index]).name
        try:
            results[name] = np.asarray(checked_image(records[index], CONFIG)) if records.labels[index] == 0 else None
        except DataError as error:
            results[name] = error.reason
            messages[name] = str(error)
    assert results.keys() == READ.keys() | SKIPPED.keys()
    for name in READ.keys() - {"rgb.png"}:
        assert not isinstance(results[name], str), (name, results[name])
        assert_pixels(results[name], name)
    for name, (_, reason) in SKIPPED.items():
        assert isinstance(results[name], str), f"{name} is read as an image"
        assert results[name] == reason, name
        assert f"odd/{Path(name).stem}" in messages[name]
        assert "0x" not in messages[name], "a message contains no object address"
    assert records.skipped == Counter(IGNORED.values())


def test_diagnose_reads_each_file_correctly_or_reports_why_not(corpus: Path) -> None:
    def pixels(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(image))

    source = ImageSource(str(corpus / "odd"), Preparation(pixels, 3, 1))
    results: dict[str, Any] = {}
    for image in source.start(0):
        try:
            results[image.name] = image.load().numpy()
        except DataError as error:
            results[image.name] = error.reason
    assert list(results) == sorted(READ.keys() | SKIPPED.keys())
    for name in READ:
        assert not isinstance(results[name], str), (name, results[name])
        assert_pixels(results[name], name)
    assert {name: str(results[name]) for name in SKIPPED} == {name: reason for name, (_, reason) in SKIPPED.items()}
    assert source.skipped == Counter(IGNORED.values())


def test_an_image_below_min_side_is_reported_as_too_small(corpus: Path) -> None:
    prepare = Preparation(lambda image: torch.zeros(1), in_chans=3, min_side=2)
    (too_small,) = ImageSource(str(corpus / "odd" / "one_pixel.png"), prepare).start(0)
    with pytest.raises(DataError, match=r"1 x 1 pixels is too small") as caught:
        too_small.load()
    assert caught.value.reason == "too small"


def test_training_skips_and_counts_unreadable_files(corpus: Path) -> None:
    source = SourceConfig(format="folder", train=str(corpus), val=str(corpus), on_error="skip")
    data = ImageData(source, CONFIG, batch_size=8, eval_batch_size=64)
    data.setup("fit")
    assert sum(len(batch.key) for batch in data.val_dataloader()) == len(READ) + 1
    expected = Counter(reason for _, reason in SKIPPED.values())
    assert data.usage.skipped == expected
    assert data.usage.ignored == Counter({reason: 2 * n for reason, n in Counter(IGNORED.values()).items()})


@pytest.mark.parametrize("name", sorted(SKIPPED))
def test_training_stops_at_the_first_unreadable_file_and_names_it(name: str, corpus: Path, tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / name).symlink_to(corpus / "odd" / name)
    data = ImageData(SourceConfig(format="folder", train=str(tmp_path), val=str(tmp_path)), CONFIG, batch_size=1)
    with pytest.raises(DataError, match=rf"0/{Path(name).stem}.*data.source.on_error=skip"):
        data.setup("fit")


def test_a_list_reports_files_that_do_not_exist(corpus: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.TXT"
    listed.write_text(f"# pictures\n{corpus}/odd/rgb.png\nmissing.png\n{corpus}/odd\n\n{corpus}/odd/upper.JPG\n")
    source = ImageSource(str(listed), Preparation(lambda image: torch.zeros(1), 3, 1))
    errors = []
    for image in source.start(0):
        try:
            image.load()
        except DataError as error:
            errors.append(error)
    assert [error.reason for error in errors] == ["unreadable file"] * 2
    assert "missing.png" in str(errors[0])
    assert "corpus" in str(errors[1])


def test_pictures_of_pillow_follow_the_same_rules() -> None:
    """Images that a user opened are not clipped and lie as they are displayed; they are not changed."""
    model = sa.create_model("vit_mini", img_size=28, in_chans=3, num_classes=0)
    deep = Image.open(io.BytesIO(saved(DEEP, "PNG", exif=oriented(6))))
    transparent = Image.open(io.BytesIO(saved(GRAY, "PNG", transparency=3)))
    seen: list[NDArray[Any]] = []

    def transform(image: Image.Image) -> torch.Tensor:
        seen.append(np.asarray(image))
        return torch.zeros(3, 28, 28)

    sa.measure(model, [deep, transparent], transform=transform)
    np.testing.assert_array_equal(seen[0], ORIENTED[6](gray(DEEP / 65_535)))
    assert transparent.info["transparency"] == 3
    cut = Image.open(io.BytesIO(saved(GRAY, "PNG")[:70]))
    with pytest.raises(sa.UserError, match=r"^images: item 1: the image cannot be decoded"):
        sa.measure(model, [deep, cut], transform=transform)


def test_evaluate_leaves_out_and_names_unreadable_files(corpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = sa.create_model("vit_mini", img_size=28, in_chans=3, num_classes=0)
    loaded = LoadedModel(
        model=model,
        description={"model": "vit_mini", "preprocessing": "none"},
        untrained=lambda seed: model,
        in_chans=3,
        transform=lambda image: torch.from_numpy(np.array(image)),
    )
    source = SourceConfig(format="folder", train=str(corpus), val=str(corpus), on_error="skip")
    val = class_sets(source, loaded).val
    assert Counter(val.targets.tolist()) == {0: len(READ), 1: 1}
    shapes = Counter(tuple(val.images.load(number).shape) for number in range(len(val.images)))
    assert shapes == Counter(pixels.shape for _, pixels in READ.values()) + Counter([RGB.shape])
    assert caplog.text.count("skipped: ") == 2 * len(SKIPPED)
    unreadable = FolderRecords(str(corpus), key="data.source.val").files.index(f"{corpus}/odd/cut.png")
    with pytest.raises(DataError, match="cannot be decoded"):
        class_sets(replace(source, on_error="stop"), loaded).val.images.load(unreadable)


def test_shards_hold_the_same_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Packed in shards, each file is read as from its folder, or left out for the same reason."""
    packable = tmp_path / "src"
    for name, (data, _) in {**READ, **SKIPPED}.items():
        if data is not None:
            (packable / "odd").mkdir(parents=True, exist_ok=True)
            (packable / "odd" / name).write_bytes(data)
    write_shards(str(packable), str(tmp_path / "dst"))
    assert "files not packed: empty file: 1" in capsys.readouterr().err
    source = ImageSource(str(tmp_path / "dst"), Preparation(lambda image: torch.from_numpy(np.array(image)), 3, 1))
    shapes: Counter[Any] = Counter()
    reasons: Counter[str] = Counter()
    for image in source.start(0):
        try:
            shapes[tuple(image.load().shape)] += 1
        except DataError as error:
            reasons[error.reason] += 1
    assert shapes == Counter(pixels.shape for _, pixels in READ.values())
    assert reasons == Counter(reason for data, reason in SKIPPED.values() if data)

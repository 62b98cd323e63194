"""The data module: images with labels, for training, evaluation and diagnostics."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from typing import Any

import torch
from lightning import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader, Dataset

from sinkablate.config import AugmentConfig, ImageConfig, SourceConfig, ViewsConfig
from sinkablate.data.account import Account
from sinkablate.data.classes import number_of_classes
from sinkablate.data.dataset import IndexedImages
from sinkablate.data.folder import FolderRecords
from sinkablate.data.layout import DataError
from sinkablate.data.position import training_position
from sinkablate.data.probe import ProbeSet, probe
from sinkablate.data.samplers import EpochBatches, EvalBatches, TrainBatches
from sinkablate.data.samples import ErrorPolicy, Preparation, Records, Sample, checked_image, collate
from sinkablate.data.sources import open_split
from sinkablate.data.stream import ShardStream, StreamImages
from sinkablate.data.stream_split import LanePlan, StreamBatches
from sinkablate.data.transforms import Views, eval_transform, train_transform
from sinkablate.errors import UserError
from sinkablate.process.cpus import usable_cpus

_SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}


class ImageData(LightningDataModule):
    """Labelled images from the embedded set, WebDataset shards or an ImageFolder.

    Args:
        source: Where the images are and how they are read.
        image: What an image is when it reaches the model.
        augment: Training augmentation.
        views: Several views of each training image in its place.
        batch_size: Images of one forward pass over all processes together.
        eval_batch_size: Images of one evaluation batch of each process.
        num_workers: Loader processes of each process; 0 loads in the training process itself.
        seed: Seed of order and augmentation.
    """

    def __init__(
        self,
        source: SourceConfig = SourceConfig(),
        image: ImageConfig = ImageConfig(),
        augment: AugmentConfig = AugmentConfig(),
        views: ViewsConfig = ViewsConfig(),
        batch_size: int = 64,
        eval_batch_size: int = 256,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("eval_batch_size", eval_batch_size, 1),
            ("num_workers", num_workers, 0),
            ("seed", seed, 0),
        ):
            if value < least:
                raise UserError(f"data.{name} must be at least {least}, got {value}")
        most = max(64, 4 * usable_cpus())
        if num_workers > most:
            raise UserError(f"data.num_workers={num_workers}: {usable_cpus()} CPUs can be used here; at most {most}")
        if views.count > 1 and views.blur_size // 2 >= image.size:
            raise UserError(
                f"data.views.blur_size={views.blur_size} is too wide for images of {image.size} pixels "
                f"(data.image.size): at most {2 * image.size - 1}"
            )
        if source.reader == "stream" and augment.aug_repeats > 1:
            raise UserError("data.augment.aug_repeats needs data.source.reader=indexed: a stream reads each image once")
        self.source, self.image, self.augment, self.views = source, image, augment, views
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.num_workers, self.seed = num_workers, seed
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a rank may have no validation image
        transform = Views(image, views) if views.count > 1 else train_transform(image, augment)
        self._train = Preparation(image, transform, seed)
        self._eval = Preparation(image, eval_transform(image))
        self._faults = ErrorPolicy(source.on_error)
        self._opened: dict[str, Records | ShardStream] = {}

    @cached_property
    def num_classes(self) -> int:
        """`data.source.num_classes`, or the number of classes of the training set."""
        return number_of_classes(self.source)

    @property
    def account(self) -> Account:
        """What training does not see of the data, and what this process and its workers skipped so far."""
        folders = [source for source in self._opened.values() if isinstance(source, FolderRecords)]
        passed_over = sum((source.skipped for source in folders), Counter[str]())
        return Account(
            len(self._open("train")),
            self.batch_size,
            self.augment.aug_repeats,
            passed_over,
            Counter(self._faults.counts),
        )

    def prepare_data(self) -> None:
        """Index the shards once per node, so that the other processes find the index beside them."""
        with suppress(UserError):  # setup raises it on every process; here the others would wait for this one
            for split in self._splits(self.trainer.state.fn if self.trainer else None):
                self._open(split)

    def setup(self, stage: str | None = None) -> None:
        """Open what a stage reads and check it before the first step.

        Raises:
            UserError: A path is missing, a split is empty or smaller than a batch, a label or channel count does not
                fit, a stream has fewer shards than readers, or `data.batch_size` does not divide.
        """
        for split in self._splits(stage):
            source = self._open(split)
            if self._faults.mode == "stop":  # else a broken first sample is one to skip
                self._check_first(source)
            self._check_readers(split, source)
        if stage in ("fit", None):
            self._local_batch_size(len(self._open("train")))

    def train_dataloader(self) -> DataLoader[Sample]:
        """This rank's part of each global batch, from the trainer's position on."""
        source = self._open("train")
        rank, world = self._rank_and_world()
        local = self._local_batch_size(len(source))
        if isinstance(source, ShardStream):
            plan = LanePlan(
                counts=source.counts, batch_size=local, rank=rank, world=world, lanes=self._lanes, seed=self.seed
            )
            dataset = StreamImages(source, plan, self._train, self._faults, block=self.source.shuffle_shards)
            return self._loader(dataset, StreamBatches(plan, self._position))
        batches = TrainBatches(
            len(source),
            self.batch_size,
            seed=self.seed,
            rank=rank,
            world=world,
            repeats=self.augment.aug_repeats,
            position=self._position,
        )
        return self._loader(IndexedImages(source, self._train, self._faults, replace=True), batches)

    def val_dataloader(self) -> DataLoader[Sample]:
        """Each validation image exactly once over all ranks."""
        return self._eval_dataloader("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        """Each test image exactly once over all ranks; the validation images where no test set is named."""
        return self._eval_dataloader("test")

    def predict_dataloader(self) -> DataLoader[Sample]:
        """As `test_dataloader`."""
        return self._eval_dataloader("test")

    def probe_images(self, count: int) -> ProbeSet:
        """The first `count` validation images of a fixed permutation: the same ones whatever the run's seed.

        Args:
            count: How many; a smaller set gives all it has.

        Returns:
            Images as evaluation sees them, their keys and classes. No global random state is touched.

        Raises:
            DataError: One cannot be read and is not to be skipped.
        """
        return probe(self._open("val"), self._eval, self._faults, count)

    def state_dict(self) -> dict[str, Any]:
        """What the position in a checkpoint counts, and the names of the classes where folders give them."""
        _, world = self._rank_and_world()
        accumulated = self.trainer.accumulate_grad_batches if self.trainer else 1
        folders = [source.classes for source in self._opened.values() if isinstance(source, FolderRecords)]
        return {
            "data.batch_size": self.batch_size,
            "trainer.accumulate_grad_batches": accumulated,
            "data.source.reader": self.source.reader,
            "readers": world * self._lanes,
            **({"classes": folders[0]} if folders else {}),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See that the position means the same here: global batches are those of any number of processes.

        Raises:
            UserError: They are of another size, a stream is split over another number of readers, or the classes have
                other names.
        """
        if self.trainer is not None and self.trainer.state.fn != TrainerFn.FITTING:
            return  # an evaluation has no position
        now = self.state_dict()
        ours, theirs = now.pop("classes", None), state_dict.get("classes")
        if ours and theirs and ours != theirs:
            differ = sorted(set(ours) ^ set(theirs))[:3]
            raise UserError(
                f"data.source.train={self.source.train}: its class folders are not those of the checkpoint "
                f"({', '.join(differ)}): labels would be shifted"
            )
        if now["data.source.reader"] == "indexed" == state_dict["data.source.reader"]:
            now["readers"] = state_dict["readers"]
        for key, value in now.items():
            if state_dict[key] != value:
                hint = " (processes times data.num_workers)" if key == "readers" else ""
                raise UserError(
                    f"{key}={value} differs from the checkpoint's {state_dict[key]}{hint}: what was seen "
                    "of the epoch cannot be told from the rest"
                )

    def _eval_dataloader(self, split: str) -> DataLoader[Sample]:
        source = self._open(split)
        rank, world = self._rank_and_world()
        if isinstance(source, ShardStream):
            plan = LanePlan(
                counts=source.counts, batch_size=self.eval_batch_size, rank=rank, world=world, lanes=self._lanes
            )
            return self._loader(StreamImages(source, plan, self._eval, self._faults, block=1), StreamBatches(plan))
        batches = EvalBatches(len(source), self.eval_batch_size, rank=rank, world=world)
        return self._loader(IndexedImages(source, self._eval, self._faults, replace=False), batches)

    def _loader(self, dataset: Dataset[Sample], batches: EpochBatches[Any]) -> DataLoader[Sample]:
        return Loader(
            dataset,
            batch_sampler=batches,
            num_workers=self.num_workers,
            collate_fn=collate,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            persistent_workers=self.num_workers > 0,
            generator=torch.Generator(),  # else each iter() draws from the global generator
        )

    def _open(self, split: str) -> Records | ShardStream:
        """Open a split once.

        Raises:
            UserError: It cannot be read, or is empty.
        """
        if split == "test" and not self.source.test:
            split = "val"
        if split not in self._opened:
            source = open_split(self.source, split, self.num_classes, self._faults)
            if not len(source):
                raise UserError(f"data.source.{split}={getattr(self.source, split)}: the split is empty")
            self._opened[split] = source
        return self._opened[split]

    def _check_first(self, source: Records | ShardStream) -> None:
        """Read one sample in the main process: a set of the wrong kind is known before any step."""
        try:
            checked_image(source.first() if isinstance(source, ShardStream) else source[0], self.image)
        except DataError as error:
            self._faults.report(error)  # which names the way out

    def _check_readers(self, split: str, source: Records | ShardStream) -> None:
        _, world = self._rank_and_world()
        if isinstance(source, ShardStream) and len(source.urls) < world * self._lanes:
            raise UserError(
                f"data.source.{split} has {len(source.urls)} shards for {world * self._lanes} readers ({world} "
                f"processes, data.num_workers={self.num_workers}): use fewer workers or write smaller shards"
            )

    def _local_batch_size(self, size: int) -> int:
        _, world = self._rank_and_world()
        if self.batch_size % world:
            raise UserError(f"data.batch_size={self.batch_size} must be a multiple of the {world} processes")
        if self.batch_size > size:
            raise UserError(f"data.batch_size={self.batch_size} exceeds the {size} images of data.source.train")
        return self.batch_size // world

    @property
    def _lanes(self) -> int:
        return max(1, self.num_workers)

    def _rank_and_world(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _position(self) -> tuple[int, int]:
        return training_position(self.trainer)

    @staticmethod
    def _splits(stage: str | None) -> tuple[str, ...]:
        return _SPLITS.get(str(stage), ("train", "val", "test")) if stage else ("train", "val", "test")


class Loader(DataLoader[Sample]):
    """torch's loader without the evaluation batches of which every sample was skipped."""

    def __iter__(self) -> Iterator[Sample]:  # type: ignore[override]
        return (batch for batch in super().__iter__() if batch is not None)

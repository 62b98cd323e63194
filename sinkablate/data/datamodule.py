"""The data module: images with labels, for training, evaluation and diagnostics."""

from collections import Counter
from contextlib import suppress
from functools import cached_property
from typing import Any, Literal

from lightning import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader

from sinkablate.config import AugmentConfig, ImageConfig, SourceConfig, ViewsConfig
from sinkablate.data.arguments import check_arguments
from sinkablate.data.classes import number_of_classes
from sinkablate.data.dataset import IndexedImages
from sinkablate.data.errors import DataError, ErrorPolicy
from sinkablate.data.folder import FolderRecords
from sinkablate.data.loader import build_loader, worker_count
from sinkablate.data.position import require_same_order, training_position
from sinkablate.data.probe import ProbeSet, read_probe_set
from sinkablate.data.samplers import EvalBatches, TrainBatches
from sinkablate.data.samples import Preparation, Records, Sample, checked_image
from sinkablate.data.sources import open_split
from sinkablate.data.stream import ShardStream, StreamImages
from sinkablate.data.stream_split import LanePlan, StreamBatches
from sinkablate.data.transforms import Views, eval_transform, train_transform
from sinkablate.data.usage import DataUsage
from sinkablate.errors import UserError

_SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}


class ImageData(LightningDataModule):
    """Labeled images that come with the package, or from WebDataset shards or an ImageFolder.

    Args:
        source: Where the images are and how they are read.
        image: Size, channels and normalization of the images that reach the model.
        augment: Training augmentation.
        views: Several random views of each training image, instead of `augment`.
        batch_size: Number of images in one forward pass, summed over all processes.
        eval_batch_size: Number of images in one evaluation batch of each process.
        num_workers: Number of DataLoader workers of each process; 0 loads in the training process, and auto uses all
            CPUs of the process but one, at most 16.
        seed: Seed of the order and the augmentation.
    """

    def __init__(
        self,
        source: SourceConfig = SourceConfig(),
        image: ImageConfig = ImageConfig(),
        augment: AugmentConfig = AugmentConfig(),
        views: ViewsConfig = ViewsConfig(),
        batch_size: int = 64,
        eval_batch_size: int = 256,
        num_workers: int | Literal["auto"] = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        keys = {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "num_workers": num_workers, "seed": seed}
        check_arguments(source, image, augment, views, keys)
        self.source, self.image, self.augment, self.views = source, image, augment, views
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.num_workers, self.seed = num_workers, seed
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a rank may have no validation images
        transform = Views(image, views) if views.count > 1 else train_transform(image, augment)
        self._train = Preparation(image, transform, seed)
        self._eval = Preparation(image, eval_transform(image))
        self._on_error = ErrorPolicy(source.on_error)
        self._opened: dict[str, Records | ShardStream] = {}

    @cached_property
    def num_classes(self) -> int:
        """`data.source.num_classes`, or the number of classes of the training set."""
        return number_of_classes(self.source)

    @property
    def usage(self) -> DataUsage:
        """How much of the data training uses, with what this process and its workers have skipped so far."""
        ignored = sum((folder.skipped for folder in self._folders()), Counter[str]())
        skipped = Counter(self._on_error.counts)
        return DataUsage(len(self._open("train")), self.batch_size, self.augment.aug_repeats, ignored, skipped)

    def prepare_data(self) -> None:
        """Index the shards once per node, so that the other processes find the index next to them."""
        with suppress(UserError):  # `setup` raises it in every process; raised here, the others would wait for this one
            for split in self._splits(self.trainer.state.fn if self.trainer else None):
                self._open(split)

    def setup(self, stage: str | None = None) -> None:
        """Open the splits of a stage and check them before the first step.

        Raises:
            UserError: A path does not exist, a split is empty or smaller than a batch, a label or the number of
                channels is invalid, a stream has fewer shards than readers, or `data.batch_size` is not a multiple of
                the number of processes.
        """
        for split in self._splits(stage):
            source = self._open(split)
            if self._on_error.mode == "stop":  # otherwise a broken first sample is skipped like any other
                self._check_first(source)
            self._check_readers(split, source)
        if stage in ("fit", None):
            self._local_batch_size(len(self._open("train")))

    def train_dataloader(self) -> DataLoader[Sample]:
        """This rank's part of each global batch, starting at the position of the trainer."""
        source = self._open("train")
        rank, world = self._rank_and_world()
        local = self._local_batch_size(len(source))
        if isinstance(source, ShardStream):
            plan = LanePlan(
                counts=source.counts, batch_size=local, rank=rank, world=world, lanes=self._lanes, seed=self.seed
            )
            dataset = StreamImages(source, plan, self._train, self._on_error, block=self.source.shuffle_shards)
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
        return self._loader(IndexedImages(source, self._train, self._on_error, replace=True), batches)

    def val_dataloader(self) -> DataLoader[Sample]:
        """Each validation image exactly once over all ranks."""
        return self._eval_dataloader("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        """Each test image exactly once over all ranks; the validation images if no test set is configured."""
        return self._eval_dataloader("test")

    def predict_dataloader(self) -> DataLoader[Sample]:
        """Same as `test_dataloader`."""
        return self._eval_dataloader("test")

    def probe_images(self, count: int) -> ProbeSet:
        """Return the first `count` validation images of a fixed permutation, which does not depend on the run's seed.

        Args:
            count: Number of images; all images if the set is smaller.

        Returns:
            Images as prepared for evaluation, their keys and classes. No global random state changes.

        Raises:
            DataError: An image cannot be read, and errors are not skipped.
        """
        return read_probe_set(self._open("val"), self._eval, self._on_error, count)

    def state_dict(self) -> dict[str, Any]:
        """Settings that determine the order of samples, and the class names if they come from folders."""
        _, world = self._rank_and_world()
        accumulated = self.trainer.accumulate_grad_batches if self.trainer else 1
        settings = {
            "data.batch_size": self.batch_size,
            "trainer.accumulate_grad_batches": accumulated,
            "data.source.reader": self.source.reader,
            "readers": world * self._lanes,
        }
        return settings | ({"classes": folders[0].classes} if (folders := self._folders()) else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that a resumed training continues with the samples that the checkpoint has not used.

        Raises:
            UserError: A setting differs, see `require_same_order`.
        """
        if self.trainer is None or self.trainer.state.fn == TrainerFn.FITTING:  # an evaluation has no position
            require_same_order(self.state_dict(), state_dict, self.source.train)

    def _eval_dataloader(self, split: str) -> DataLoader[Sample]:
        source = self._open(split)
        rank, world = self._rank_and_world()
        if isinstance(source, ShardStream):
            plan = LanePlan(
                counts=source.counts, batch_size=self.eval_batch_size, rank=rank, world=world, lanes=self._lanes
            )
            return self._loader(StreamImages(source, plan, self._eval, self._on_error, block=1), StreamBatches(plan))
        batches = EvalBatches(len(source), self.eval_batch_size, rank=rank, world=world)
        return self._loader(IndexedImages(source, self._eval, self._on_error, replace=False), batches)

    def _loader(
        self, dataset: IndexedImages | StreamImages, batches: TrainBatches | EvalBatches | StreamBatches
    ) -> DataLoader[Sample]:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return build_loader(dataset, batches, num_workers=self._workers, pin_memory=on_gpu)

    def _open(self, split: str) -> Records | ShardStream:
        """Open a split, or return it if it is open already.

        Raises:
            UserError: The split cannot be read, or is empty.
        """
        if split == "test" and not self.source.test:
            split = "val"
        if split not in self._opened:
            source = open_split(self.source, split, self.num_classes, self._on_error)
            if not len(source):
                raise UserError(f"data.source.{split}={getattr(self.source, split)}: the split contains no images")
            self._opened[split] = source
        return self._opened[split]

    def _check_first(self, source: Records | ShardStream) -> None:
        """Read one sample in the main process, so that a data set of the wrong kind is refused before any step."""
        try:
            checked_image(source.first() if isinstance(source, ShardStream) else source[0], self.image)
        except DataError as error:
            self._on_error.handle(error)  # adds a hint to the message

    def _check_readers(self, split: str, source: Records | ShardStream) -> None:
        _, world = self._rank_and_world()
        if isinstance(source, ShardStream) and len(source.urls) < world * self._lanes:
            raise UserError(
                f"data.source.{split} has {len(source.urls)} shards for {world * self._lanes} readers ({world} "
                f"processes, data.num_workers={self._workers}); use fewer workers or write smaller shards"
            )

    def _local_batch_size(self, size: int) -> int:
        _, world = self._rank_and_world()
        if self.batch_size % world:
            raise UserError(f"data.batch_size={self.batch_size}: must be a multiple of the {world} processes")
        if self.batch_size > size:
            raise UserError(f"data.batch_size={self.batch_size}: exceeds the {size} images of data.source.train")
        return self.batch_size // world

    def _folders(self) -> list[FolderRecords]:
        return [source for source in self._opened.values() if isinstance(source, FolderRecords)]

    @property
    def _workers(self) -> int:
        return worker_count(self.num_workers, self.trainer.num_devices if self.trainer else 1)

    @property
    def _lanes(self) -> int:
        return max(1, self._workers)

    def _rank_and_world(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _position(self) -> tuple[int, int]:
        return training_position(self.trainer)

    @staticmethod
    def _splits(stage: str | None) -> tuple[str, ...]:
        return _SPLITS.get(str(stage), ("train", "val", "test"))

"""What a task gets: a frozen backbone, images, a cache of features, and settings."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch

from sinkablate.config import EvaluationConfig, SourceConfig
from sinkablate.diagnose.model import LoadedModel
from sinkablate.errors import UserError
from sinkablate.evaluate.backbones import NO_BACKBONE, Backbone, backbone_at, make_backbone
from sinkablate.evaluate.cache import CachedFeatures, FeatureCache
from sinkablate.evaluate.dense_inputs import DenseSets, dense_sets
from sinkablate.evaluate.features import MASKS
from sinkablate.evaluate.images import ClassSets, PreparedImages, class_sets
from sinkablate.evaluate.rows import BackboneName


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Everything that a task reads.

    A task draws random numbers only from generators that it seeds with `seeds`, writes nothing, and prints only through
    `note`.
    """

    loaded: LoadedModel
    """The evaluated model with its preprocessing."""
    backbone: Backbone
    """The model that features are read from: the evaluated one, or a floor."""
    device: torch.device
    config: EvaluationConfig
    """The settings of all tasks; the field has the name of the task."""
    cache: FeatureCache
    class_sets: Callable[[], ClassSets]
    """Opens the labeled images on first use."""
    mask_sets: Callable[[], DenseSets]
    """Opens the images with masks on first use."""
    labels_chosen: bool = True
    """Whether the labeled images are those of a run, or named by the user, and not just the embedded ones."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the probes: a task that draws random numbers is repeated for each."""
    batch_size: int = 32
    """Images per forward pass."""
    note: Callable[[str], None]
    """Called with a sentence for the user, such as a setting that had to be limited."""

    @property
    def classes(self) -> ClassSets:
        """The labeled images of `knn` and `linear`."""
        return self.class_sets()

    @property
    def masked(self) -> DenseSets:
        """The images with masks of `segmentation`."""
        return self.mask_sets()

    def read(self, reading: str, images: PreparedImages) -> CachedFeatures:
        """Return features of images, extracted if they are not cached yet.

        Args:
            reading: Name of a reading, a key of `features.READINGS`.
            images: The images.
        """
        return self.cache.get(reading, self._backbone(reading, images), images, self.batch_size)

    def extract(self, reading: str, images: PreparedImages) -> None:
        """Extract the features that `read` returns, shared among all ranks, which must all call this."""
        self.cache.extract(reading, self._backbone(reading, images), images, self.batch_size)

    def _backbone(self, reading: str, images: PreparedImages) -> Backbone:
        return NO_BACKBONE if reading == MASKS else backbone_at(self.backbone, images.size)

    def with_backbone(self, name: BackboneName) -> "Subject":
        """Return the same subject with the evaluated model or one of its floors."""
        if name == self.backbone.name:
            return self
        backbone = make_backbone(name, self.loaded.model, self.loaded.untrained, self.device)
        return replace(self, backbone=backbone)


def subject_of(
    loaded: LoadedModel,
    config: EvaluationConfig,
    features: FeatureCache,
    source: SourceConfig | None,
    *,
    device: torch.device,
    seeds: tuple[int, ...],
    batch_size: int,
    note: Callable[[str], None],
) -> Subject:
    """Return what the tasks read.

    Args:
        loaded: The model.
        config: The settings of all tasks.
        features: The cache of features.
        source: Labeled images; None means those of the run, otherwise the embedded images.
        device: Where the model runs.
        seeds: Seeds of the probes.
        batch_size: Images per forward pass.
        note: Called with sentences for the user.

    Raises:
        UserError: The model does not read images.
    """
    if loaded.transform is None:
        raise UserError(f"{loaded.description['model']} does not read images, so it cannot be evaluated")
    return Subject(
        loaded=loaded,
        backbone=make_backbone("model", loaded.model, loaded.untrained, device),
        device=device,
        config=config,
        cache=features,
        class_sets=cache(lambda: class_sets(source or loaded.source or SourceConfig(), loaded)),
        mask_sets=cache(lambda: dense_sets(config.segmentation, loaded)),
        labels_chosen=bool(source or loaded.source),
        seeds=seeds,
        batch_size=batch_size,
        note=note,
    )

"""The images of the task `quantization`: some for the ranges of activations, others on which damage is measured."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sinkablate.errors import UserError
from sinkablate.evaluate.dense_inputs import DenseSets
from sinkablate.evaluate.images import ClassSets, PreparedImages, evenly, images_at
from sinkablate.evaluate.subject import Subject
from sinkablate.vit.anatomy import class_count


@dataclass(frozen=True)
class QuantizationImages:
    """Two sets of images that have none in common."""

    calibration: PreparedImages
    measured: PreparedImages
    targets: Tensor | None
    """Classes of the measured images, (n,) int64; None if they are not known or are not those of the classifier."""
    masks: PreparedImages | None = None
    """Masks of the measured images, (S, S) uint8 each; None if the model has a classifier or they are not known."""

    def truth(self) -> Tensor | None:
        """Return the classes of the measured images (n,), or of their pixels (n, S, S); None if neither is known."""
        if self.masks is None:
            return self.targets
        return torch.stack([self.masks.load(index) for index in range(len(self.masks))])

    def measured_at_most(self, count: int) -> "QuantizationImages":
        """Return the same sets with at most `count` of the measured images."""
        numbers = evenly(len(self.measured), count)
        targets = None if self.targets is None else self.targets[numbers]
        masks = None if self.masks is None else self.masks.subset(numbers)
        return QuantizationImages(self.calibration, self.measured.subset(numbers), targets, masks)


def quantization_images(subject: Subject) -> QuantizationImages:
    """Choose images that are evenly spaced in their sets, which may be sorted by class.

    Without `quantization.images`, those for calibration are training images and those that are measured are validation
    images: of the labeled images, or of those with masks if the model has no classifier. The classes of labeled images
    count as those of the classifier if there are as many of them and the images are those of a run or named by the
    user: the embedded images have nothing to do with another model of ten classes.

    Raises:
        UserError: There are too few images, or they cannot be read.
    """
    config = subject.config.quantization
    if config.images is not None:
        return _without_labels(subject, config.images)
    number = class_count(subject.backbone.model)
    sets: ClassSets | DenseSets = subject.classes if number else subject.masked
    train, val = sets.train.images, sets.val.images
    chosen, targets, masks = evenly(len(val), config.limit), None, None
    if isinstance(sets, DenseSets):
        masks = sets.val.masks.subset(chosen)
    elif subject.labels_chosen and number == len(sets.val.classes):
        targets = sets.val.targets[chosen]
    return QuantizationImages(
        calibration=train.subset(evenly(len(train), config.calibration)),
        measured=val.subset(chosen),
        targets=targets,
        masks=masks,
    )


def _without_labels(subject: Subject, location: str) -> QuantizationImages:
    """Split the images of a location, in the forms that `diagnose` reads."""
    loaded, config = subject.loaded, subject.config.quantization
    images = images_at(location, loaded)
    if len(images) <= config.calibration:
        raise UserError(
            f"quantization.images={location}: {len(images)} images, of which none would be left to measure after "
            f"{config.calibration} for calibration; lower quantization.calibration"
        )
    calibration = evenly(len(images), config.calibration)
    rest = sorted(set(range(len(images))) - set(calibration))
    measured = [rest[index] for index in evenly(len(rest), config.limit)]
    return QuantizationImages(images.subset(calibration), images.subset(measured), targets=None)

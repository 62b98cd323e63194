"""Ways to quantize a model, as values, and how far each is from full precision on the same images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sinkablate.errors import UserError
from sinkablate.evaluate.damage import Floats, divergence, mean_cosine
from sinkablate.evaluate.extraction import Span
from sinkablate.evaluate.features import last_output
from sinkablate.evaluate.miou import confusion
from sinkablate.evaluate.quantized import Calibration, Simulation
from sinkablate.evaluate.quantizer import Scheme
from sinkablate.evaluate.segmentation_training import class_logits
from sinkablate.vit.anatomy import class_count, classify, final_norm
from sinkablate.vit.tokens import token_layout


@dataclass(frozen=True)
class Treatment:
    """What happens to some tokens of every image while the others are quantized."""

    tokens: str = ""
    """The tokens: `sinks`, `random` (as many others), or empty for none."""
    kept: bool = False
    """They are out of the range and stay in full precision; otherwise they are out of the range and clipped to it."""
    seed: int | None = None
    """Seed of random tokens."""

    @property
    def name(self) -> str:
        """Name in metrics, such as `sinks_kept` or `random_clipped`."""
        return f"{self.tokens}_{'kept' if self.kept else 'clipped'}"


@dataclass(frozen=True)
class Variant:
    """One way to quantize a model."""

    scheme: Scheme
    treatment: Treatment = Treatment()
    layer: str = ""
    """The only layer that is quantized; empty for all."""


class Masks(NamedTuple):
    """The tokens of a treatment."""

    calibration: Tensor
    """On the calibration images, (c, N) bool."""
    measured: Tensor
    """On the measured images, (n, N) bool."""


@dataclass(frozen=True)
class Damage:
    """How far a variant is from full precision on n images."""

    cosine: Floats
    """Mean cosine of the patch tokens, (n,)."""
    kl: Floats | None
    """Divergence of the class probabilities in nats, (n,); None without a classifier."""
    correct: Floats | None
    """1 where the class is right, (n,); None without a classifier or without known classes."""
    counts: Floats | None = None
    """Confusion matrix of the pixels of each image, (n, C, C); None without a probe."""
    chance: float = 0.0
    """The accuracy of a guess among K classes, 1 / K; 0 without a classifier."""

    @property
    def size(self) -> Floats:
        """The damage: `kl` if the model has a classifier, otherwise 1 - `cosine`."""
        return 1 - self.cosine if self.kl is None else self.kl


class Outputs(NamedTuple):
    """The outputs of a model that are compared."""

    patches: Tensor
    """Patch tokens after the final norm, (B, P, D)."""
    logits: Tensor | None
    """(B, K); None without a classifier."""


def outputs(model: nn.Module, images: Tensor) -> Outputs:
    """Return the outputs of a model for images (B, C, H, W)."""
    last = last_output(model, images)
    prefix = token_layout(model, last.shape[1], images.shape[-2:]).num_prefix
    patches = final_norm(model)(last)[:, prefix:]
    return Outputs(patches, classify(model, last))


@dataclass(frozen=True)
class Comparison:
    """Runs variants of a model next to the model itself."""

    model: nn.Module
    """In measurement mode."""
    calibration: Calibration
    masks: Mapping[tuple[str, int | None], Masks]
    """The tokens of each treatment, by its `tokens` and `seed`."""
    probe: nn.Linear | None = None
    """A linear layer from patch tokens to class logits of their pixels, trained and applied in full precision."""

    def simulation(self, variant: Variant) -> Simulation:
        """Return the simulation of a variant."""
        masks = self._masks_of(variant.treatment)
        return Simulation(
            self.model,
            variant.scheme,
            self.calibration,
            layers=[variant.layer] if variant.layer else None,
            excluded=None if masks is None else masks.calibration,
            kept=variant.treatment.kept,
        )

    def damages(
        self, variants: Sequence[Variant], batches: Iterable[tuple[Span, Tensor]], targets: Tensor | None
    ) -> tuple[dict[Variant, Damage], Damage]:
        """Return the damage of each variant, and of the model in full precision, which is right on some images only.

        Args:
            variants: The variants.
            batches: Numbers of the images of each batch, as (first, one past the last), and the images.
            targets: Classes of all images, (n,), or with a probe of their pixels, (n, S, S); None if they are not known
                or are not those of the model.

        Raises:
            UserError: The outputs in full precision are not finite.
        """
        parts: dict[Variant | None, list[_Numbers]] = {variant: [] for variant in (None, *variants)}
        for span, images in batches:
            full = outputs(self.model, images)
            if not full.patches.isfinite().all():
                raise UserError(f"images {span[0]} to {span[1] - 1}: the model computes NaN or infinity")
            classes = None if targets is None else targets[slice(*span)].to(images.device)
            parts[None].append(self._compared(full, full, classes))
            for variant in variants:
                with self.simulation(variant) as simulation:
                    masks = self._masks_of(variant.treatment)
                    simulation.tokens = None if masks is None else masks.measured[slice(*span)]
                    parts[variant].append(self._compared(full, outputs(self.model, images), classes))
        classes_of_model = class_count(self.model)
        chance = 1 / classes_of_model if classes_of_model else 0.0
        joined = {variant: _joined(numbers, chance) for variant, numbers in parts.items()}
        return {variant: joined[variant] for variant in variants}, joined[None]

    def _compared(self, full: Outputs, quantized: Outputs, classes: Tensor | None) -> "_Numbers":
        """Compare the outputs of one batch."""
        numbers = {"cosine": mean_cosine(full.patches, quantized.patches)}
        if full.logits is not None and quantized.logits is not None:
            numbers["kl"] = divergence(full.logits, quantized.logits)
        if classes is not None and self.probe is not None:
            of_pixels = class_logits(self.probe, quantized.patches.float(), classes.shape[-1])
            pairs, count = zip(of_pixels.argmax(1), classes, strict=True), self.probe.out_features
            numbers["counts"] = torch.stack([confusion(predicted, target, count) for predicted, target in pairs])
        elif classes is not None and quantized.logits is not None:
            numbers["correct"] = quantized.logits.argmax(-1) == classes
        return numbers

    def _masks_of(self, treatment: Treatment) -> Masks | None:
        return self.masks[treatment.tokens, treatment.seed] if treatment.tokens else None


_Numbers = dict[str, Tensor]
"""Field of `Damage` -> numbers of the images of one batch, (B, ...)."""


def _joined(batches: Sequence[_Numbers], chance: float) -> Damage:
    """Return the numbers of all images."""
    fields = {name: torch.cat([batch[name] for batch in batches]).double().cpu().numpy() for name in batches[0]}
    return Damage(fields["cosine"], fields.get("kl"), fields.get("correct"), fields.get("counts"), chance)

"""The rows of the task `quantization`, from the damage of its variants.

The quality of a model is the top-1 accuracy of its classifier, or the mIoU of a segmentation probe, where one is known.
"""

from collections.abc import Iterator, Mapping
from math import nan

from sinkablate.evaluate.damage import Floats, Statistic, drop_of_iou, interval, mean, mean_iou, share_removed, value_of
from sinkablate.evaluate.quantizer import Scheme
from sinkablate.evaluate.rows import Row
from sinkablate.evaluate.variants import Comparison, Damage, Variant

TASK = "quantization"
FULL_PRECISION = "fp32"
"""Protocol of the rows of the model itself."""
QUALITIES = ("acc1", "miou")
Estimates = dict[str, tuple[Statistic, tuple[Floats, ...]]]
"""Metric -> a statistic, and the samples of the images that it is computed from."""


def estimates(damage: Damage, full: Damage) -> Estimates:
    """Return what is reported of a variant.

    Args:
        damage: The variant.
        full: The model in full precision, on the same images.
    """
    found: Estimates = {}
    if full.correct is not None and damage.correct is not None:
        found |= {"acc1_drop": (mean, (full.correct - damage.correct,)), "acc1": (mean, (damage.correct,))}
    if full.counts is not None and damage.counts is not None:
        found |= {"miou_drop": (drop_of_iou, (full.counts, damage.counts)), "miou": (mean_iou, (damage.counts,))}
    if damage.kl is not None:
        found["kl"] = mean, (damage.kl,)
    return found | {"cosine": (mean, (damage.cosine,))}


def values(damage: Damage, full: Damage) -> dict[str, float]:
    """Return the values of `estimates`."""
    return {name: value_of(statistic, *samples) for name, (statistic, samples) in estimates(damage, full).items()}


def destroyed(damage: Damage, full: Damage, floor: float) -> float:
    """Return 1 if a smaller share of the quality than `floor` is left, else 0; NaN if there is no quality to lose.

    Of an accuracy, the part above chance counts. Where the quality is not known, the cosine of the patch tokens is
    used, which is 1 in full precision.
    """
    left, of_full = values(damage, full), values(full, full)
    quality = next((name for name in QUALITIES if name in left), "cosine")
    chance = full.chance if quality == "acc1" else 0.0
    at_first = of_full[quality] - chance
    return float(left[quality] - chance < floor * at_first) if at_first > 0 else nan


def scheme_rows(
    variant: Variant, damages: Mapping[Variant, Damage], full: Damage, floor: float, seed: int
) -> Iterator[Row]:
    """Yield the rows of a scheme in which all layers are quantized.

    Args:
        variant: The scheme without a treatment.
        damages: The damage of every variant on the same images.
        full: The model in full precision, on the same images.
        floor: See `destroyed`.
        seed: Seed of the bootstrap.
    """
    damage, protocol = damages[variant], variant.scheme.name
    for metric, (statistic, samples) in estimates(damage, full).items():
        yield from _with_interval(protocol, metric, statistic, samples, seed)
    yield Row(task=TASK, protocol=protocol, metric="destroyed", value=destroyed(damage, full, floor))
    bits = variant.scheme.activation_bits
    if bits is None:
        return
    static = Variant(Scheme(bits, bits))
    if variant != static:
        yield from _with_interval(protocol, "repaired", share_removed, (damages[static].size, damage.size), seed)
    for other, treated in damages.items():
        if other.scheme == variant.scheme and other.treatment.tokens:
            metric, samples = f"share_{other.treatment.name}", (damage.size, treated.size)
            yield from _with_interval(protocol, metric, share_removed, samples, seed, other.treatment.seed)


def _with_interval(
    protocol: str, metric: str, statistic: Statistic, samples: tuple[Floats, ...], seed: int, of_seed: int | None = None
) -> list[Row]:
    """Return a number and the ends of its interval, as `metric`, `metric_low` and `metric_high`."""
    low, high = interval(statistic, *samples, seed=seed)
    numbers = {metric: value_of(statistic, *samples), f"{metric}_low": low, f"{metric}_high": high}
    return [
        Row(task=TASK, protocol=protocol, metric=name, value=number, seed=of_seed) for name, number in numbers.items()
    ]


def layer_rows(variant: Variant, damage: Damage, full: Damage, floor: float) -> Iterator[Row]:
    """Yield the rows of one layer, whose `item` is its name."""
    for metric, value in (values(damage, full) | {"destroyed": destroyed(damage, full, floor)}).items():
        yield Row(task=TASK, protocol=variant.scheme.name, metric=metric, item=variant.layer, value=value)


def full_rows(comparison: Comparison, full: Damage) -> Iterator[Row]:
    """Yield the rows of the model in full precision."""
    sinks = comparison.masks["sinks", None].measured
    numbers = {"sinks_per_image": float(sinks.sum(1).double().mean()), "quantized_layers": len(comparison.calibration)}
    numbers |= {name: value for name, value in values(full, full).items() if name in QUALITIES}
    for metric, value in numbers.items():
        yield Row(task=TASK, protocol=FULL_PRECISION, metric=metric, value=value)

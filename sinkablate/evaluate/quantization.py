"""The task `quantization`: what simulated integer arithmetic does to a model, where, and how much of it sinks cause.

Every variant (a scheme, a treatment of the sinks, one layer or all) is compared with the model in full precision, image
by image. Its damage is the divergence of the class probabilities, or 1 - cosine of the patch tokens for a model without
a classifier. The share that is attributed to some tokens is the share of the damage that a treatment of them removes.

The linear layers are quantized; the patch embedding and the matrix products of attention stay in full precision.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from sinkablate.config.evaluation import QuantizationConfig
from sinkablate.diagnostics.probe import measurement_mode, record
from sinkablate.diagnostics.rules import Rule, rule_named
from sinkablate.evaluate.damage import Floats, interval, mean, share_removed
from sinkablate.evaluate.extraction import Span, batches_of
from sinkablate.evaluate.images import PreparedImages
from sinkablate.evaluate.quantization_images import QuantizationImages, quantization_images
from sinkablate.evaluate.quantized import calibrate
from sinkablate.evaluate.quantizer import FULL_RANGE, Granularity, Scheme
from sinkablate.evaluate.rows import Row
from sinkablate.evaluate.sink_tokens import random_tokens, sink_tokens
from sinkablate.evaluate.subject import Subject
from sinkablate.evaluate.variants import Comparison, Damage, Masks, Treatment, Variant, outputs
from sinkablate.vit.anatomy import has_output_gate

TASK = "quantization"
FULL_PRECISION = "fp32"
"""Protocol of the rows of the model itself."""
GRANULARITIES: tuple[Granularity, ...] = ("static", "dynamic", "token")


def quantization(subject: Subject) -> list[Row]:
    """Quantize a model with every scheme, layer by layer, and with sinks and random tokens treated differently."""
    config = subject.config.quantization
    images = quantization_images(subject)
    with measurement_mode(subject.backbone.model):
        comparison = prepare(subject, images)
        whole = [Variant(scheme) for scheme in schemes(config)]
        treated = [
            replace(variant, treatment=treatment)
            for variant in whole
            for treatment in treatments(variant.scheme, subject.seeds)
        ]
        damages, right = comparison.damages([*whole, *treated], on_device(subject, images.measured), images.targets)
        fewer = images.measured_at_most(config.layer_limit)
        by_layer, right_by_layer = comparison.damages(
            [Variant(scheme, layer=layer) for scheme in layer_schemes(config) for layer in comparison.calibration],
            on_device(subject, fewer.measured),
            fewer.targets,
        )
    return [
        *(row for variant in whole for row in scheme_rows(variant, damages, right, config, subject.seeds[0])),
        *(row for variant, damage in by_layer.items() for row in layer_rows(variant, damage, right_by_layer, config)),
        *full_rows(comparison, right),
    ]


def schemes(config: QuantizationConfig) -> list[Scheme]:
    """Return the schemes in which all layers are quantized, the most usual one first, and those of weights alone."""
    everything = []
    for bits in config.bits:
        static, *others = (Scheme(bits, bits, granularity) for granularity in GRANULARITIES)
        everything += [static, replace(static, percentile=config.percentile), *others]
    return everything + [Scheme(bits, None) for bits in config.bits]


def layer_schemes(config: QuantizationConfig) -> list[Scheme]:
    """Return the schemes in which the activations of one layer are quantized."""
    return [Scheme(None, bits, granularity) for bits in config.bits for granularity in GRANULARITIES]


def treatments(scheme: Scheme, seeds: Sequence[int]) -> list[Treatment]:
    """Return the treatments of tokens that can change the damage of a scheme, the control once per seed.

    A range per token does not depend on other tokens, and a range from percentiles leaves out values, not tokens.
    """
    if scheme.activation_bits is None or scheme.percentile != FULL_RANGE:
        return []
    clipped = [Treatment("sinks"), *(Treatment("random", seed=seed) for seed in seeds)]
    kept = [replace(treatment, kept=True) for treatment in clipped]
    return kept if scheme.granularity == "token" else [*clipped, *kept]


def on_device(subject: Subject, images: PreparedImages) -> Iterator[tuple[Span, Tensor]]:
    """Yield the numbers of the images of each batch, and the images (B, C, H, W) on the device of the model."""
    for span, batch in batches_of(images, subject.batch_size):
        yield span, batch.to(subject.device)


def prepare(subject: Subject, images: QuantizationImages) -> Comparison:
    """Calibrate the ranges of all layers, and find the sinks of all images."""
    model, config = subject.backbone.model, subject.config.quantization
    rule = rule_named(config.rule or subject.loaded.rule, subject.loaded.thresholds, gated=has_output_gate(model))
    calibration = calibrate(
        model,
        (batch for _, batch in on_device(subject, images.calibration)),
        lambda batch: outputs(model, batch),
        config.percentile,
    )
    sinks = Masks(*(_sinks(subject, part, rule) for part in (images.calibration, images.measured)))
    masks: dict[tuple[str, int | None], Masks] = {("sinks", None): sinks}
    for seed in subject.seeds:
        masks["random", seed] = Masks(*(random_tokens(mask, seed) for mask in sinks))
    on_model = {key: Masks(*(mask.to(subject.device) for mask in both)) for key, both in masks.items()}
    return Comparison(model, calibration, on_model)


def _sinks(subject: Subject, images: PreparedImages, rule: Rule) -> Tensor:
    """Return which tokens of some images are sinks, (n, N) bool."""
    batches = (batch for _, batch in on_device(subject, images))
    return sink_tokens(record(subject.backbone.model, batches, subject.loaded.thresholds)[0], rule)


def with_interval(
    protocol: str, metric: str, value: Floats, limits: tuple[float, float], seed: int | None = None
) -> list[Row]:
    """Return a number and the ends of its interval, as `metric`, `metric_low` and `metric_high`."""
    numbers = {metric: float(value), f"{metric}_low": limits[0], f"{metric}_high": limits[1]}
    return [Row(task=TASK, protocol=protocol, metric=name, value=number, seed=seed) for name, number in numbers.items()]


def scheme_rows(
    variant: Variant, damages: Mapping[Variant, Damage], right: Floats | None, config: QuantizationConfig, seed: int
) -> Iterator[Row]:
    """Yield the rows of a scheme in which all layers are quantized.

    Args:
        variant: The scheme without a treatment.
        damages: The damage of every variant on the same images.
        right: Where the model in full precision is right, (n,).
        config: The settings of the task.
        seed: Seed of the bootstrap.
    """
    damage, protocol = damages[variant], variant.scheme.name
    for metric, values in per_image(damage, right).items():
        yield from with_interval(protocol, metric, mean(values), interval(mean, values, seed=seed))
    for metric, value in verdicts(damage, right, config.floor).items():
        yield Row(task=TASK, protocol=protocol, metric=metric, value=value)
    bits = variant.scheme.activation_bits
    if bits is None:
        return
    static = Variant(Scheme(bits, bits))
    removed: dict[tuple[str, int | None], tuple[Damage, Damage]] = {}
    if variant != static:
        removed["repaired", None] = damages[static], damage
    for other, treated in damages.items():
        if other.scheme == variant.scheme and other.treatment.tokens:
            removed[f"share_{other.treatment.name}", other.treatment.seed] = damage, treated
    for (metric, of_seed), (before, after) in removed.items():
        samples = before.size, after.size
        limits = interval(share_removed, *samples, seed=seed)
        yield from with_interval(protocol, metric, share_removed(*samples), limits, of_seed)


def per_image(damage: Damage, right: Floats | None) -> dict[str, Floats]:
    """Return the numbers of every image whose means are reported, by metric, (n,) each."""
    numbers = {"kl": damage.kl, "cosine": damage.cosine}
    if right is not None and damage.correct is not None:
        numbers = {"acc1_drop": right - damage.correct, "acc1": damage.correct, **numbers}
    return {name: values for name, values in numbers.items() if values is not None}


def verdicts(damage: Damage, right: Floats | None, floor: float) -> dict[str, float]:
    """Return `destroyed`: 1 if less than a share of the quality in full precision is left, else 0.

    The quality is the top-1 accuracy, or the cosine of the patch tokens where the accuracy is not known.

    Args:
        damage: The damage of a variant.
        right: Where the model in full precision is right, (n,).
        floor: The share.
    """
    if right is None or damage.correct is None:
        return {"destroyed": float(damage.cosine.mean() < floor)}
    return {"destroyed": float(damage.correct.mean() < floor * right.mean())}


def layer_rows(variant: Variant, damage: Damage, right: Floats | None, config: QuantizationConfig) -> Iterator[Row]:
    """Yield the rows of one layer, whose `item` is its name."""
    numbers = {name: float(values.mean()) for name, values in per_image(damage, right).items()}
    for metric, value in (numbers | verdicts(damage, right, config.floor)).items():
        yield Row(task=TASK, protocol=variant.scheme.name, metric=metric, item=variant.layer, value=value)


def full_rows(comparison: Comparison, right: Floats | None) -> Iterator[Row]:
    """Yield the rows of the model in full precision."""
    sinks = comparison.masks["sinks", None].measured
    numbers = {"sinks_per_image": float(sinks.sum(1).double().mean()), "quantized_layers": len(comparison.calibration)}
    if right is not None:
        numbers["acc1"] = float(right.mean())
    for metric, value in numbers.items():
        yield Row(task=TASK, protocol=FULL_PRECISION, metric=metric, value=value)

"""The task `quantization`: what simulated integer arithmetic does to a model, where, and how much of it sinks cause.

Every variant (a scheme, a treatment of the sinks, one layer or all) is compared with the model in full precision, image
by image. Its damage is the divergence of the class probabilities, or 1 - cosine of the patch tokens for a model without
a classifier. The share that is attributed to some tokens is the share of the damage that a treatment of them removes.

The linear layers are quantized; the patch embedding and the matrix products of attention stay in full precision.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import Tensor, nn

from sinkablate.config.evaluation import QuantizationConfig
from sinkablate.diagnostics.probe import measurement_mode, record
from sinkablate.diagnostics.rules import Rule, rule_named
from sinkablate.evaluate.backbones import backbone_at
from sinkablate.evaluate.extraction import Span, batches_of
from sinkablate.evaluate.images import PreparedImages
from sinkablate.evaluate.quantization_images import QuantizationImages, quantization_images
from sinkablate.evaluate.quantization_probe import trained_probe
from sinkablate.evaluate.quantization_rows import full_rows, layer_rows, scheme_rows
from sinkablate.evaluate.quantized import calibrate
from sinkablate.evaluate.quantizer import FULL_RANGE, Granularity, Scheme
from sinkablate.evaluate.rows import Row
from sinkablate.evaluate.sink_tokens import random_tokens, sink_tokens
from sinkablate.evaluate.subject import Subject
from sinkablate.evaluate.variants import Comparison, Masks, Treatment, Variant, outputs
from sinkablate.vit.anatomy import has_output_gate

NO_LABELS = (
    "quantization: accuracy is left out, because the classes of the images are not known to be those of the model; "
    "name images of its own classes with --data.source"
)
GRANULARITIES: tuple[Granularity, ...] = ("static", "dynamic", "token")


def quantization(subject: Subject) -> list[Row]:
    """Quantize a model with every scheme, layer by layer, and with sinks and random tokens treated differently."""
    config = subject.config.quantization
    images = quantization_images(subject)
    if images.targets is None and images.masks is None and config.images is None:
        subject.note(NO_LABELS)
    probe = None if images.masks is None else trained_probe(subject)
    subject = replace(subject, backbone=backbone_at(subject.backbone, images.measured.size))
    with measurement_mode(subject.backbone.model):
        comparison = prepare(subject, images, probe)
        whole = [Variant(scheme) for scheme in schemes(config)]
        treated = [
            replace(variant, treatment=treatment)
            for variant in whole
            for treatment in treatments(variant.scheme, subject.seeds)
        ]
        damages, full = comparison.damages([*whole, *treated], on_device(subject, images.measured), images.truth())
        fewer = images.measured_at_most(config.layer_limit)
        by_layer, full_by_layer = comparison.damages(
            [Variant(scheme, layer=layer) for scheme in layer_schemes(config) for layer in comparison.calibration],
            on_device(subject, fewer.measured),
            fewer.truth(),
        )
    return [
        *(row for variant in whole for row in scheme_rows(variant, damages, full, config.floor, subject.seeds[0])),
        *(
            row
            for variant, damage in by_layer.items()
            for row in layer_rows(variant, damage, full_by_layer, config.floor)
        ),
        *full_rows(comparison, full),
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


def prepare(subject: Subject, images: QuantizationImages, probe: nn.Linear | None) -> Comparison:
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
    return Comparison(model, calibration, on_model, probe)


def _sinks(subject: Subject, images: PreparedImages, rule: Rule) -> Tensor:
    """Return which tokens of some images are sinks, (n, N) bool."""
    batches = (batch for _, batch in on_device(subject, images))
    return sink_tokens(record(subject.backbone.model, batches, subject.loaded.thresholds)[0], rule)

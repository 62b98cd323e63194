"""Measure the attention sinks of a model in memory."""

from collections.abc import Sequence

from torch import nn

from sinkablate.api.images import Images, Transform, batches_of
from sinkablate.config import ThresholdConfig
from sinkablate.config.types import checked
from sinkablate.diagnostics.measurement import Measurement
from sinkablate.diagnostics.probe import record
from sinkablate.vit.anatomy import block_numbers
from sinkablate.vit.find import unwrap


@checked
def measure(
    model: nn.Module,
    images: Images,
    *,
    transform: Transform | None = None,
    blocks: Sequence[int] | None = None,
    thresholds: ThresholdConfig | None = None,
    batch_size: int = 16,
) -> Measurement:
    """Measure what the attention sinks of a vision transformer do; nothing is written or printed.

    The numbers are those of `sinkablate diagnose`. The model runs in eval mode on its own device, without TF32 and
    autocast; afterward its modes and all random states are what they were before.

    Args:
        model: A vision transformer of timm, of Hugging Face's transformers or from `create_model`, with fp32 weights.
        images: A batch (n, C, H, W); a list of tensors, PIL images or paths; a folder, a list file, shards or
            `builtin`, as in `diagnose --images`; or a DataLoader. Frequencies and medians are over these images.
        transform: Turns a PIL image into a tensor (C, H, W); by default that of the run the model
            was loaded from, or of a timm model's weights.
        blocks: Numbers of the blocks to measure, negative ones from the last; all by default.
        thresholds: Thresholds of the quantities and rules.
        batch_size: Images per forward pass; a DataLoader has its own.

    Returns:
        The tables `.heads`, `.blocks` and `.sensitivity` (polars), `.labels(rule)`, `.summary` and `.per_image`.

    Raises:
        UserError: The model cannot be measured, or an image cannot be read.

    Example::

        import sinkablate as sa
        import timm

        model = timm.create_model("vit_small_patch14_dinov2.lvd142m", pretrained=True)
        m = sa.measure(model, "builtin")
        print(m.heads.sort("adaptive_frequency", descending=True).head())
        print(m.summary["counts"]["adaptive"])
    """
    model = unwrap(model)
    thresholds = thresholds or ThresholdConfig()
    numbers = block_numbers(model, blocks)
    batches = batches_of(images, model, transform=transform, batch_size=batch_size)
    records, error = record(model, batches, thresholds, numbers)
    return Measurement.of(model, records, thresholds, numbers, error)

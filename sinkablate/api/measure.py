"""Measure the attention sinks of a model in memory."""

from collections.abc import Sequence

from torch import nn

from sinkablate.api.images import Images, Transform, batches_of
from sinkablate.config import ThresholdConfig
from sinkablate.config.types import checked
from sinkablate.diagnostics.measurement import Measurement
from sinkablate.diagnostics.probe import record
from sinkablate.errors import require_at_least
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
    memory_mib: int | None = None,
) -> Measurement:
    """Measure what the attention sinks of a vision transformer do; nothing is written or printed.

    The numbers are those of `sinkablate diagnose`. The model runs in eval mode on its own device, without TF32 and
    autocast; afterward its modes and all random states are what they were before.

    Args:
        model: A vision transformer from timm, Hugging Face's transformers or `create_model`, with fp32 or fp64
            weights, on any device. It may be compiled or wrapped for parallel training.
        images: A batch (n, C, H, W) of normalized images; a list of tensors (C, H, W), PIL images or paths; a folder, a
            list file, shards or `builtin`, as in `diagnose --images`; or a DataLoader, whose batches are tensors,
            tuples that begin with one, or mappings with `pixel_values` or `image`. Frequencies and medians are over
            these images.
        transform: Turns a PIL image into a tensor (C, H, W). The default is the preprocessing of the run that the model
            was loaded from, or that of a timm model's weights; it is not used for tensors.
        blocks: Indices of the blocks to measure, from 0; negative numbers count from the last block. All by default.
        thresholds: Thresholds of the quantities and rules.
        batch_size: Number of images per forward pass; a DataLoader determines its own.
        memory_mib: Memory of the blocks that are measured together, in MiB; by default 2 on a CPU and 2048 on a GPU. It
            changes speed and memory only; 0 measures every block by itself.

    Returns:
        A measurement with the polars tables `.heads` (one row per block and head), `.blocks` and `.sensitivity`, the
        arrays `.labels(rule)` and `.per_image[name]` (images, blocks, heads), and the dictionary `.summary`. The page
        "Quantities" of the documentation defines every column.

    Raises:
        UserError: An argument cannot be used, the model cannot be measured, or an image cannot be read.

    Example::

        import sinkablate as sa
        import timm

        model = timm.create_model("vit_small_patch14_dinov2.lvd142m", pretrained=True)
        m = sa.measure(model, "builtin")
        print(m.heads.sort("adaptive_frequency", descending=True).head())
        print(m.summary["counts"]["adaptive"])
    """
    require_at_least(memory_mib, 0, "memory_mib")
    model = unwrap(model)
    thresholds = thresholds or ThresholdConfig()
    numbers = block_numbers(model, blocks)
    batches = batches_of(images, model, transform=transform, batch_size=batch_size)
    records, error = record(model, batches, thresholds, numbers, memory_mib)
    return Measurement.of(model, records, thresholds, numbers, error)

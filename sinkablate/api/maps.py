"""Attention maps of chosen heads, and maps of token norms."""

from collections.abc import Sequence

from torch import Tensor, nn

from sinkablate.api.images import Images, Transform, batches_of
from sinkablate.api.measure import measure
from sinkablate.config import ThresholdConfig
from sinkablate.config.types import checked
from sinkablate.diagnostics.attention_maps import Head, Heads, record_maps
from sinkablate.diagnostics.token_maps import TokenMaps
from sinkablate.vit.find import unwrap


@checked
def attention_maps(
    model: nn.Module, images: Images, heads: Heads, *, transform: Transform | None = None, batch_size: int = 16
) -> dict[Head, Tensor]:
    """Return the attention weights of some heads, as the model's own mechanism computes them.

    Args:
        model: A vision transformer, see `measure`.
        images: The images, see `measure`.
        heads: Pairs (block, head), both counted from 0.
        transform: Turns a PIL image into a tensor (C, H, W), see `measure`.
        batch_size: Number of images per forward pass.

    Returns:
        For each (block, head) the weights (n, N, M) of n images, on the CPU and in the precision of the model. Rows are
        queries and columns are keys, in the order CLS, registers, patches; a mechanism with a null or key-value bias
        column has it last, so M = N + 1.

    Raises:
        UserError: An argument cannot be used, a head is outside the model, or the model cannot be measured.

    Example::

        maps = sa.attention_maps(model, images, heads=[(5, 3)])
        received = maps[5, 3].mean(dim=1)  # mean attention that each key receives, (n, M)
    """
    model = unwrap(model)
    return record_maps(model, batches_of(images, model, transform=transform, batch_size=batch_size), heads)


@checked
def token_maps(
    model: nn.Module,
    images: Images,
    *,
    transform: Transform | None = None,
    blocks: Sequence[int] | None = None,
    thresholds: ThresholdConfig | None = None,
    batch_size: int = 16,
) -> TokenMaps:
    """Return the norm of every patch token over the image, block by block, and which patches are outliers.

    The same as `measure(...).token_maps`. The cut-off for outliers comes from the data, unless
    `ThresholdConfig(outlier_norm=150)` or another fixed norm is given.

    Args:
        model: A vision transformer, see `measure`.
        images: The images, see `measure`.
        transform: Turns a PIL image into a tensor (C, H, W), see `measure`.
        blocks: Indices of the blocks to measure, see `measure`.
        thresholds: `outlier_norm` is a fixed cut-off.
        batch_size: Number of images per forward pass.

    Returns:
        The polars tables `.table` (one row per stage: the input of the first block, then the output of every block) and
        `.heads` (how often the dominant column of a head is an outlier), and for the first eight images the arrays
        `.norms` and `.outliers` (images, stages, rows, columns). `.stages` names the stages; that after the last block
        is before the final norm.

    Raises:
        UserError: An argument cannot be used, the model cannot be measured, or it does not read images.

    Example::

        maps = sa.token_maps(model, "builtin")
        print(maps.table.select("block", "stage", "fit", "cutoff", "outliers", "border", "chance_border"))
    """
    return measure(
        model, images, transform=transform, blocks=blocks, thresholds=thresholds, batch_size=batch_size
    ).token_maps

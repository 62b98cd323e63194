"""Attention maps of chosen heads."""

from torch import Tensor, nn

from sinkablate.api.images import Images, Transform, batches_of
from sinkablate.config.types import checked
from sinkablate.diagnostics.attention_maps import Head, Heads, record_maps
from sinkablate.vit.find import unwrap


@checked
def attention_maps(
    model: nn.Module, images: Images, heads: Heads, *, transform: Transform | None = None, batch_size: int = 16
) -> dict[Head, Tensor]:
    """Return the attention weights of some heads, as the model's own mechanism computes them.

    Args:
        model: As for `measure`.
        images: As for `measure`.
        heads: Pairs (block, head), both counted from 0.
        transform: As for `measure`.
        batch_size: Images per forward pass.

    Returns:
        For each (block, head) the weights (n, N, M) on the CPU. A row belongs to a query, a column to a key: CLS,
        registers, patches, and last the null or key-value bias column of a mechanism that has one.

    Raises:
        UserError: A head is outside the model, or the model cannot be measured.

    Example::

        maps = sa.attention_maps(model, images, heads=[(5, 3)])
        received = maps[5, 3].mean(dim=1)  # what every key receives, (n, M)
    """
    model = unwrap(model)
    return record_maps(model, batches_of(images, model, transform=transform, batch_size=batch_size), heads)

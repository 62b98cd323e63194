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

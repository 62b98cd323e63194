"""Attention maps of chosen heads, read from the tapped model."""

from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from sinkablate.diagnostics.batches import accepted
from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.diagnostics.tap import Tap
from sinkablate.diagnostics.view import BlockView
from sinkablate.errors import UserError
from sinkablate.vit.anatomy import block_parts, blocks_of
from sinkablate.vit.tokens import TextTokenType, TokenType

Head = tuple[int, int]
"""Block and head."""
Heads = Annotated[Iterable[Head], "pairs (block, head) such as [(5, 3)]"]
"""What functions accept as the heads of a model."""


class MapRecorder:
    """A consumer of the tap that keeps the attention weights of chosen heads on the CPU.

    Args:
        heads: (block, head) of each.
        reduce: Applied to each matrix of weights (N, M) before it is kept, such as a mean over queries.
    """

    def __init__(self, heads: Sequence[Head], reduce: Callable[[Tensor], Tensor] | None = None) -> None:
        self.reduce = reduce
        self.maps: dict[Head, list[Tensor]] = {head: [] for head in heads}
        """The weights of each head, image by image."""
        self.value_norms: dict[Head, list[Tensor]] = {head: [] for head in heads}
        """Norm ||u_j|| of what every column would write, (M,), image by image."""
        self.column_types: tuple[TokenType | TextTokenType, ...] = ()
        """Token type of each of the M columns; of the first text, if the model reads texts."""

    def attention(self, view: BlockView) -> None:
        """Keep the chosen heads of one block; one matrix of weights exists at a time on the device."""
        self.column_types = self.column_types or view.column_kinds()
        for block, head in self.maps:
            if block != view.index:
                continue
            for image in range(len(view.q)):
                weights = view.weights(slice(image, image + 1), slice(head, head + 1))[0, 0]
                norms = torch.linalg.vector_norm(view.v[image, head] @ view.out_map[head].T, dim=-1)
                self.maps[block, head].append((self.reduce(weights) if self.reduce else weights).cpu())
                self.value_norms[block, head].append(norms.cpu())

    def output(self, index: int, x: Tensor) -> None:
        """Keep nothing of a block's output."""


def run_recorder(model: nn.Module, batches: Iterable[Tensor], recorder: MapRecorder) -> None:
    """Send batches of images (B, C, H, W) through a model under the tap.

    Raises:
        UserError: The model cannot be measured.
    """
    with measurement_mode(model), Tap(model, recorder, sorted({block for block, _ in recorder.maps})) as tap:
        for batch in accepted(model, batches):
            tap.run(batch)


def heads_of(model: nn.Module, heads: Iterable[Head]) -> list[Head]:
    """Return heads in their order, each once, after a check that they belong to a model.

    Raises:
        UserError: There are none, or one is not a pair of numbers or is outside the model.
    """
    depth, count = len(blocks_of(model)), block_parts(model, 0).num_heads
    chosen: dict[Head, None] = {}
    for pair in heads:
        numbers = tuple(pair) if isinstance(pair, Iterable) else ()
        if len(numbers) != 2 or not all(_is_integer(number) for number in numbers):
            raise UserError(f"heads: expected pairs (block, head) such as [(5, 3)], got {pair!r}")
        block, head = map(int, numbers)
        if not (0 <= block < depth and 0 <= head < count):
            raise UserError(f"heads: {block}:{head} is outside the model's {depth} blocks of {count} heads")
        chosen[block, head] = None
    if not chosen:
        raise UserError("heads: is empty; name at least one, such as [(5, 3)]")
    return list(chosen)


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def record_maps(model: nn.Module, batches: Iterable[Tensor], heads: Iterable[Head]) -> dict[Head, Tensor]:
    """Return the attention weights of some heads on batches of images, (n, N, M) on the CPU for each head.

    Raises:
        UserError: A head is outside the model, there are no images, or the model cannot be measured.
    """
    recorder = MapRecorder(heads_of(model, heads))
    run_recorder(model, batches, recorder)
    return {head: torch.stack(maps) for head, maps in recorder.maps.items()}

"""One image's way through a model, kept so that an edit goes on from the block it is made in.

A replay runs the edited block with stand-ins for its attention (and pathway) that hand out the edited update, then the
blocks behind it. What was computed before the edit is never computed again.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sinkablate.diagnostics.tap import Tap
from sinkablate.diagnostics.view import BlockView
from sinkablate.vit.anatomy import BlockParts, block_parts, blocks_of

TOKENS = 8192
"""Tokens of one replay at most: the number of copies depends on the sequence alone, so that no number does on more."""


@dataclass
class ActivationCache:
    """What one image left behind in a model."""

    views: dict[int, BlockView] = field(default_factory=dict)
    """Of the chosen blocks."""
    streams: list[Tensor] = field(default_factory=list)
    """Residual stream into every block, (1, N, D) each."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    """What every block was called with beside the stream."""
    beside: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    """What the attention of chosen blocks returned beside its update; there for those that return a tuple."""
    pathways: dict[int, Tensor] = field(default_factory=dict)
    """What the pathways of chosen blocks wrote (1, N, D)."""
    pathway_inputs: dict[int, Tensor] = field(default_factory=dict)
    """The normed tokens they read (1, N, D)."""
    last: Tensor = field(default_factory=lambda: torch.empty(0))
    """Output of the last block (1, N, D)."""

    def attention(self, view: BlockView) -> None:
        """Keep a view, as the tap's consumer."""
        self.views[view.index] = view

    def output(self, index: int, x: Tensor) -> None:
        """Nothing: the next block's input is kept."""


class Replay:
    """Sends images through a model and repeats parts of the way.

    Args:
        model: In eval mode; without gradients.
        blocks: Those that will be edited.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[int]) -> None:
        self.model = model
        self.blocks = list(blocks_of(model))
        self.parts = {index: block_parts(model, index) for index in blocks}

    def run_with_cache(self, image: Tensor) -> ActivationCache:
        """Send one image (1, ...) through the model.

        Raises:
            UserError: A chosen block cannot be tapped, or is not what the tap makes of it.
        """
        cache = ActivationCache()

        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            cache.streams.append(args[0])
            cache.calls.append((args[1:], kwargs))

        def leave(_: nn.Module, _args: Any, output: Any) -> None:
            cache.last = _first(output)

        with ExitStack() as stack:
            for block in self.blocks:
                handle = block.register_forward_pre_hook(enter, with_kwargs=True)
                stack.callback(handle.remove)
            stack.callback(self.blocks[-1].register_forward_hook(leave).remove)
            for index, parts in self.parts.items():
                self._note(cache, index, parts, stack)
            with Tap(self.model, cache, list(self.parts)) as tap:
                tap.run(image)
        return cache

    def _note(self, cache: ActivationCache, index: int, parts: BlockParts, stack: ExitStack) -> None:
        def attention(_: nn.Module, _args: Any, output: Any) -> None:
            if isinstance(output, tuple):
                cache.beside[index] = output[1:]

        def pathway(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            cache.pathway_inputs[index], cache.pathways[index] = args[0], output

        stack.callback(parts.attn.register_forward_hook(attention).remove)
        if parts.pathway is not None:
            stack.callback(parts.pathway.register_forward_hook(pathway).remove)

    def from_block(self, cache: ActivationCache, index: int, update: Tensor, pathway: Tensor | None = None) -> Tensor:
        """Outputs of the last block (E, N, D) where the attention of block `index` writes something else.

        Args:
            cache: Of the image.
            index: The edited block.
            update: What its attention writes instead, before LayerScale, (E, N, D).
            pathway: What its pathway writes instead, (E, N, D); None: what it wrote.
        """
        parts = self.parts[index]
        given: Any = (update, *cache.beside[index]) if index in cache.beside else update
        with ExitStack() as stack:
            stack.enter_context(_stand_in(parts.block, parts.attn, given))
            if parts.pathway is not None:
                wrote = cache.pathways[index] if pathway is None else pathway
                stack.enter_context(_stand_in(parts.block, parts.pathway, wrote))
            x = self._call(cache, index, cache.streams[index].expand(len(update), -1, -1))
        for later in range(index + 1, len(self.blocks)):
            x = self._call(cache, later, x)
        return x

    def _call(self, cache: ActivationCache, index: int, x: Tensor) -> Tensor:
        args, kwargs = cache.calls[index]
        return _first(self.blocks[index](x, *args, **kwargs))


class _Given(nn.Module):
    """Hands out what it was given, whatever it is called with."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, *_args: Any, **_kwargs: Any) -> Any:
        return self.output


@contextmanager
def _stand_in(block: nn.Module, module: nn.Module, output: Any) -> Iterator[None]:
    """Put a fixed output in the place of one of a block's modules."""
    name = next(name for name, child in block.named_children() if child is module)
    setattr(block, name, _Given(output))
    try:
        yield
    finally:
        setattr(block, name, module)


def _first(output: Any) -> Tensor:
    """The stream of a block that returns it, or a tuple that starts with it."""
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found


def copies(num_tokens: int) -> int:
    """Copies of an image in one replay, at most."""
    return max(1, TOKENS // num_tokens)

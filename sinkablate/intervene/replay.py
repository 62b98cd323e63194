"""Run a model once and cache its activations, so that an edit only needs the edited block and those after it.

A replay runs the edited block with its attention (and pathway) replaced by modules that return the edited update, then
the later blocks. Nothing before the edit is computed again.
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
"""Largest number of tokens in one replay. The number of copies depends on the length of the sequence only, and so do
the results."""


@dataclass
class ActivationCache:
    """The activations of one image."""

    views: dict[int, BlockView] = field(default_factory=dict)
    """Views of the chosen blocks."""
    streams: list[Tensor] = field(default_factory=list)
    """Residual stream into every block, (1, N, D) each."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    """Arguments of every block besides the stream."""
    further_outputs: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    """Further outputs of the attention of chosen blocks, if it returns a tuple."""
    pathways: dict[int, Tensor] = field(default_factory=dict)
    """Outputs of the pathways of chosen blocks, (1, N, D)."""
    pathway_inputs: dict[int, Tensor] = field(default_factory=dict)
    """Inputs of these pathways, the normed tokens (1, N, D)."""
    last: Tensor = field(default_factory=lambda: torch.empty(0))
    """Output of the last block (1, N, D)."""

    def attention(self, view: BlockView) -> None:
        """Store the view of a block; called by the tap."""
        self.views[view.index] = view

    def output(self, index: int, x: Tensor) -> None:
        """Do nothing: the input of the next block is stored instead."""


class Replay:
    """Runs a model and repeats parts of the run with edits.

    Args:
        model: In eval mode; without gradients.
        blocks: Indices of the blocks to edit.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[int]) -> None:
        self.model = model
        self.blocks = list(blocks_of(model))
        self.parts = {index: block_parts(model, index) for index in blocks}

    def run_with_cache(self, image: Tensor) -> ActivationCache:
        """Run the model on one image (1, ...) and return its activations.

        Raises:
            UserError: A chosen block cannot be tapped, or differs from what the tap rebuilds.
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
                cache.further_outputs[index] = output[1:]

        def pathway(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            cache.pathway_inputs[index], cache.pathways[index] = args[0], output

        stack.callback(parts.update.register_forward_hook(attention).remove)
        if parts.pathway is not None:
            stack.callback(parts.pathway.register_forward_hook(pathway).remove)

    def from_block(self, cache: ActivationCache, index: int, update: Tensor, pathway: Tensor | None = None) -> Tensor:
        """Return the outputs of the last block, (E, N, D), with another attention update in block `index`.

        Args:
            cache: Activations of the image.
            index: The edited block.
            update: The new update of its attention, before LayerScale, (E, N, D).
            pathway: The new output of its pathway, (E, N, D); None keeps the cached one.
        """
        parts = self.parts[index]
        given: Any = (update, *cache.further_outputs[index]) if index in cache.further_outputs else update
        with ExitStack() as stack:
            stack.enter_context(_stand_in(parts.block, parts.update, given))
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
    """Returns a fixed output, whatever it is called with."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, *_args: Any, **_kwargs: Any) -> Any:
        return self.output


@contextmanager
def _stand_in(block: nn.Module, module: nn.Module, output: Any) -> Iterator[None]:
    """Replace one of a block's modules, at any depth, with a fixed output."""
    path = next(path for path, child in block.named_modules() if child is module)
    owner, name = block.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2]
    setattr(owner, name, _Given(output))
    try:
        yield
    finally:
        setattr(owner, name, module)


def _first(output: Any) -> Tensor:
    """Return the stream from the output of a block: the output itself, or the first element of a tuple."""
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found


def copies(num_tokens: int) -> int:
    """Return the largest number of copies of an image in one replay."""
    return max(1, TOKENS // num_tokens)

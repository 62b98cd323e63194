"""Records everything that a tap captures in one forward pass."""

from torch import Tensor, nn

from sinkablate.diagnostics.tap import Tap
from sinkablate.diagnostics.view import BlockView


class Keep:
    """A consumer that keeps all views and outputs in order."""

    def __init__(self) -> None:
        self.views: list[BlockView] = []
        self.outputs: list[Tensor] = []

    def attention(self, view: BlockView) -> None:
        self.views.append(view)

    def output(self, index: int, x: Tensor) -> None:
        assert index == self.views[-1].index
        self.outputs.append(x)


def tapped(model: nn.Module, images: Tensor) -> tuple[list[BlockView], list[Tensor], dict[int, float]]:
    """Views and outputs of all blocks, and the rebuild errors."""
    kept = Keep()
    with Tap(model, kept) as tap:
        tap.run(images)
    return kept.views, kept.outputs, tap.rebuild_errors

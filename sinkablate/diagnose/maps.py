"""Where the busiest heads of a run look, on its own probe images: for a report's panel of example images."""

from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from sinkablate.diagnose.from_run import load_from_run
from sinkablate.diagnose.model import LoadedModel
from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.diagnostics.rules import ADAPTIVE_RULE
from sinkablate.diagnostics.tap import Tap
from sinkablate.diagnostics.view import BlockView
from sinkablate.figures.maps import Floats, Maps, busiest, patch_grid
from sinkablate.process.threads import considerate_threads
from sinkablate.vit.tokens import TokenType


class _Received:
    """Keeps what every column receives from chosen heads: the mean of |A| over the queries."""

    def __init__(self, heads: list[tuple[int, int]]) -> None:
        self.rows: dict[tuple[int, int], Floats] = {key: np.empty((0, 0), np.float32) for key in heads}
        self.kinds: tuple[str, ...] = ()

    def attention(self, view: BlockView) -> None:
        """One block: (images, M) of each chosen head; one matrix of weights at a time."""
        self.kinds = tuple(TokenType(kind).label for kind in view.column_types().tolist())
        for block, head in self.rows:
            if block == view.index:
                each = [
                    view.weights(slice(i, i + 1), slice(head, head + 1))[0, 0].abs().mean(dim=0)
                    for i in range(len(view.q))
                ]
                self.rows[block, head] = torch.stack(each).float().cpu().numpy()

    def output(self, index: int, x: Tensor) -> None:
        """Nothing is kept."""


@considerate_threads()
def example_maps(run: Path, heads: pl.DataFrame, count: int, images: int, *, trust: bool = False) -> Maps:
    """Attention that columns receive from the busiest heads of a run's last checkpoint.

    Args:
        run: Directory of the run.
        heads: Its table of heads.
        count: So many heads at most.
        images: So many of the run's probe images.
        trust: Read them through the commands that the run's configuration names.

    Raises:
        UserError: There is no checkpoint, or its data cannot be had.
    """
    loaded = load_from_run(str(run), trust=trust)
    assert loaded.own is not None
    probe, received = loaded.own(images), _Received(busiest(heads, ADAPTIVE_RULE, count))
    with (
        measurement_mode(loaded.model),
        Tap(loaded.model, received, sorted({block for block, _ in received.rows})) as tap,
    ):
        tap.run(probe.images)
    pictures = () if loaded.toy is not None else tuple(_picture(loaded, image) for image in probe.images)
    patches = received.kinds.count("patch")
    return Maps(
        heads=tuple(received.rows),
        names=tuple(map(str, probe.names)),
        pictures=pictures,
        kinds=received.kinds,
        received=np.stack(list(received.rows.values())),
        grid=patch_grid(patches, *pictures[0].shape[:2]) if pictures else (1, patches),
    )


def _picture(loaded: LoadedModel, image: Tensor) -> Floats:
    """An image (C, H, W) as it was before it was normalized, (H, W) or (H, W, 3)."""
    seen = loaded.description["preprocessing"]
    mean, std = (torch.tensor(seen[name]).view(-1, 1, 1) for name in ("mean", "std"))
    plain = (image.cpu() * std + mean).clamp(0, 1).movedim(0, -1).float().numpy()
    return plain[..., 0] if plain.shape[-1] == 1 else plain[..., :3]

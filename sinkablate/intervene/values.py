"""The values of the edited heads on every image; edits of other images use them as donor values."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sinkablate.diagnostics.view import BlockView
from sinkablate.files.writing import write_atomically
from sinkablate.intervene.replay import ActivationCache, Replay
from sinkablate.intervene.selection import Plan
from sinkablate.run.reading import read_arrays
from sinkablate.run.resumable import RESUMES
from sinkablate.vit.anatomy import block_parts, blocks_of, final_norm

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Values:
    """Values of n images, K chosen heads and P blocks with a pathway."""

    sink: Array
    """v_s, after a value gate, (n, K, d)."""
    ordinary: Array
    """v_j of a random token that is not the sink, (n, K, d)."""
    registers: Array
    """Values of the registers (n, K, R, d)."""
    states: Array
    """Global states g (n, P, width of g)."""
    outputs: Array
    """Mean final, normed patch token (n, D)."""

    def save(self, path: Path) -> None:
        """Write the values to a file, atomically."""

        def write(partial: Path) -> None:
            with partial.open("wb") as file:
                np.savez(file, **asdict(self))

        write_atomically(path, write, RESUMES)

    @classmethod
    def load(cls, path: Path) -> "Values":
        """Read the values from a file."""
        names = tuple(field.name for field in fields(cls))
        return cls(**dict(zip(names, read_arrays(path, names), strict=True)))


def pathway_blocks(model: nn.Module) -> list[int]:
    """Return the indices of the blocks with a global pathway."""
    return [index for index in range(len(blocks_of(model))) if block_parts(model, index).pathway is not None]


@torch.no_grad()
def collect(model: nn.Module, plan: Plan, images: Iterable[Tensor]) -> Values:
    """Run the model on every image, one at a time, and return the values.

    Args:
        model: In eval mode.
        plan: The chosen heads.
        images: (1, C, H, W) each, in the order of the plan, on the model's device.
    """
    states = pathway_blocks(model)
    replay = Replay(model, sorted({block for block, _ in plan.heads} | set(states)))
    found: dict[str, list[Array]] = {field.name: [] for field in fields(Values)}
    for image, tensor in enumerate(images):
        cache = replay.run_with_cache(tensor)
        for name, value in _of_image(model, plan, image, cache, states).items():
            found[name].append(value.float().cpu().numpy())
    return Values(**{name: np.stack(arrays) for name, arrays in found.items()})


def _of_image(model: nn.Module, plan: Plan, image: int, cache: ActivationCache, states: list[int]) -> dict[str, Tensor]:
    heads: dict[str, list[Tensor]] = {"sink": [], "ordinary": [], "registers": []}
    for block, head in plan.heads:
        view, block_and_head = cache.views[block], (block, head)
        v, layout = view.v[0, head], view.layout
        heads["sink"].append(v[plan.sink(image, block_and_head)])
        heads["ordinary"].append(v[plan.other_token(image, block_and_head, layout.num_tokens, "ordinary")])
        heads["registers"].append(v[layout.num_cls : layout.num_prefix])
    found = {name: torch.stack(values) if values else torch.empty(0) for name, values in heads.items()}
    found["states"] = torch.stack([state(model, cache, index) for index in states]) if states else torch.empty(0)
    return found | {"outputs": mean_patch(final_norm(model)(cache.last)[0], any_view(cache))}


def state(model: nn.Module, cache: ActivationCache, index: int) -> Tensor:
    """Return the global state g of a block's pathway, (K,)."""
    pathway: Any = block_parts(model, index).pathway
    found: Tensor = pathway.state(cache.pathway_inputs[index])[0, 0]
    return found


def any_view(cache: ActivationCache) -> BlockView:
    """Return any of the views: all have the same layout."""
    return next(iter(cache.views.values()))


def mean_patch(tokens: Tensor, view: BlockView) -> Tensor:
    """Return the mean of the patch tokens, (..., N, D) -> (..., D)."""
    return tokens[..., view.layout.num_prefix :, :].mean(-2)

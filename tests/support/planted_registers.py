"""A vision transformer in which known neurons write known outlier tokens, in float64."""

from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

WIDTH, GRID, PATCH = 16, 4, 4
WRITERS = {0: (7,), 1: (5, 11)}
"""Block -> the neurons that write an outlier; the one in block 0 writes too little for an outlier there."""
READER = (3, 2)
"""Block and index of a neuron that is even more active where an outlier is, and writes nothing of note."""
MARK, OTHER = 0, 1
"""Coordinates of the stream: the marked patches have the first one, all other tokens the second one."""
HEIGHTS = {7: 0.3, 5: 30.0, 11: 20.0}
"""Neuron -> length of what it adds to a token, per unit of its activation."""
TARGETS = {7: 3, 5: 4, 11: 5}
"""Neuron -> the coordinate to which it adds."""
GAINS = {7: 1.0, 5: 1.0, 11: 1.1}
"""Neuron -> its activation is gain * relu(coordinate MARK of the normed token - 1)."""


@dataclass(frozen=True)
class Planted:
    """The model, images, and which patches of them are outliers."""

    model: Any
    images: Tensor
    marks: Tensor
    """Which patches become outliers, (n, P) bool."""


@torch.no_grad()
def planted(count: int = 6) -> Planted:
    """Build the model: attention writes nothing, and neither does any MLP apart from the planted neurons.

    A marked patch enters with about 2 in the coordinate MARK and every other token with about 2 in OTHER, plus noise
    in the others. The planted neurons read MARK and are silent (ReLU) on all other tokens.
    """
    torch.manual_seed(0)
    model: Any = timm.create_model(
        "vit_mini", img_size=GRID * PATCH, patch_size=PATCH, embed_dim=WIDTH, depth=4, num_classes=3
    ).double()
    nn.init.zeros_(model.pos_embed)
    nn.init.zeros_(model.patch_embed.proj.bias)
    model.patch_embed.proj.weight.zero_()
    weight = model.patch_embed.proj.weight.view(WIDTH, -1)
    weight[MARK, 0] = weight[OTHER, 1] = 1.0
    weight[2:, 2:] = 0.05 * torch.randn(WIDTH - 2, weight.shape[1] - 2)
    model.cls_token.zero_()[..., OTHER] = 2.0
    for block in model.blocks:
        nn.init.zeros_(block.attn.proj.weight), nn.init.zeros_(block.attn.proj.bias)
        block.mlp.act = nn.ReLU()
        for parameter in block.mlp.parameters():
            parameter.zero_()
    for block, neurons in WRITERS.items():
        mlp = model.blocks[block].mlp
        for neuron in neurons:
            mlp.fc1.weight[neuron, MARK], mlp.fc1.bias[neuron] = GAINS[neuron], -GAINS[neuron]
            mlp.fc2.weight[TARGETS[neuron], neuron] = HEIGHTS[neuron]
    block, neuron = READER
    reader = model.blocks[block].mlp
    reader.fc1.weight[neuron, TARGETS[5]], reader.fc1.bias[neuron] = 50.0, -100.0
    reader.fc2.weight[9, neuron] = 1e-3
    images, marks = _images(count)
    return Planted(model.eval(), images, marks)


def _images(count: int) -> tuple[Tensor, Tensor]:
    """Return images, and which of their patches are marked: one or two of 16 each."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(count, GRID, GRID, PATCH * PATCH, generator=generator, dtype=torch.float64)
    marks = torch.zeros(count, GRID * GRID, dtype=torch.bool)
    for image in range(count):
        marks[image, torch.randperm(GRID * GRID, generator=generator)[: 1 + image % 2]] = True
    flags = marks.view(count, GRID, GRID).double()
    strength = 2 + 0.2 * torch.rand(count, GRID, GRID, generator=generator, dtype=torch.float64)
    pixels[..., 0], pixels[..., 1] = flags * strength, (1 - flags) * strength
    tiles = pixels.view(count, GRID, GRID, PATCH, PATCH).transpose(2, 3)
    return tiles.reshape(count, 1, GRID * PATCH, GRID * PATCH), marks

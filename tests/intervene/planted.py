"""A model with planted heads, half NOP and half broadcast, that all attend to one sink; its images are tokens."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from variants import noise

from sinkablate.config import SelectionConfig, ThresholdConfig
from sinkablate.data.probe import ProbeSet
from sinkablate.diagnose.diagnosis import Diagnosis
from sinkablate.diagnose.images import InMemoryImages
from sinkablate.diagnose.model import LoadedModel
from sinkablate.diagnose.store import Store
from sinkablate.diagnostics.rules import rule_named
from sinkablate.intervene.experiment import Experiment
from sinkablate.intervene.store import Rows
from sinkablate.intervene.stored_run import StoredRun

DIM, HEADS, DEPTH, PATCHES = 64, 4, 7, 16
WIDTH = DIM // HEADS
MARK, CONTENT = 0, slice(1, 17)
"""Channel that only the sink has, and channels that carry its content; patches fill the others."""
IMAGES = 60
CPU = torch.device("cpu")


class PlantedTransformer(nn.Module):
    """timm's blocks applied to the given tokens, of which the first is the sink."""

    num_prefix_tokens = 1

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.cls_token = nn.Parameter(torch.zeros(1, 1, DIM))
            self.blocks = nn.ModuleList(Block(DIM, HEADS, qkv_bias=True) for _ in range(DEPTH))
            self.norm = nn.LayerNorm(DIM)

    def forward_features(self, tokens: Tensor) -> Tensor:
        x = tokens
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def is_nop(head: int) -> bool:
    """Whether a head was planted as NOP: every other head is."""
    return head % 2 == 0


@torch.no_grad()
def planted() -> Any:
    """A model whose queries all attend to the mark. NOP heads read only channels that the sink lacks; the others also
    read its content."""
    model: Any = PlantedTransformer(0).eval()
    for block in model.blocks:
        weight, bias = block.attn.qkv.weight.view(3, HEADS, WIDTH, DIM), block.attn.qkv.bias.view(3, HEADS, WIDTH)
        weight[:2] = 0
        bias.zero_()
        bias[0, :, 0] = 10
        weight[1, :, 0, MARK] = 2
        weight[2, :, :, MARK] = 0
        weight[2, ::2, :, CONTENT] = 0
        weight[2, 1::2, :, CONTENT] *= 2
        read = weight[2, :, :, CONTENT.stop :]
        read -= read.mean(-1, keepdim=True)  # so that the mean, which the norm subtracts from all channels, is not read
        for written in (block.attn.proj.weight, block.mlp.fc2.weight):
            written[MARK] = 0
            written[CONTENT.stop :] *= 0.02  # the sink still lacks what NOP heads read
        block.attn.proj.bias.zero_()
        block.mlp.fc2.bias.zero_()
    return model


def tokens(count: int, seed: int = 0) -> Tensor:
    """Sequences (n, 1 + PATCHES, D): a sink with the mark and its own content, and patches with a common part, so that
    the queries of a random network agree."""
    x = noise(count, 1 + PATCHES, DIM, seed=seed)
    x[:, 0, CONTENT.stop :] = 0
    x[:, 0, MARK] = 4
    x[:, 1:, : CONTENT.stop] = 0
    x[:, 1:, -8:] += 5
    return x


def experiment(out: Path, model: nn.Module, count: int = IMAGES, edits: str = "all", **selection: int) -> StoredRun:
    """Prepare an intervention on a planted or random model."""
    untrained = lambda seed: PlantedTransformer(seed).eval()  # noqa: E731
    loaded = LoadedModel(model=model, untrained=untrained, description={"model": "planted", "weights": "by hand"})
    given = InMemoryImages(ProbeSet(tokens(count), [f"sequence {number}" for number in range(count)]))
    thresholds, rule = ThresholdConfig(), rule_named("causal", ThresholdConfig())
    about = Diagnosis(loaded=loaded, source=given, where="tokens", thresholds=thresholds, blocks=list(range(DEPTH)))
    about.finish(Store(out / "diagnosis", about.identity(), overwrite=False), CPU, batch_size=16, strict=True)
    with np.load(out / "diagnosis" / "per_image.npz") as arrays:
        stored = dict(arrays)
    prepared = Experiment.prepare(model, stored, rule, edits=edits, selection=SelectionConfig(**selection))
    rows = Rows(out, {"model": "planted"}, overwrite=False)
    rows.open()
    return StoredRun(prepared, loaded, given, rows, CPU, thresholds, rule)


def run(stored: StoredRun, controls: int = 16) -> None:
    """Run all images as one shard."""
    stored.run((0, 1), 16, controls)

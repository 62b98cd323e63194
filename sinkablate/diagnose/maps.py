"""Attention maps for figures: of the heads that sink most, on one image or on the probe images of a run."""

from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from sinkablate.diagnose.from_run import load_from_run
from sinkablate.diagnose.model import LoadedModel
from sinkablate.diagnostics.attention_maps import Head, MapRecorder, run_recorder
from sinkablate.diagnostics.patches import patch_grid
from sinkablate.figures.maps import Floats, Maps, busiest
from sinkablate.figures.stripes import AttentionMap
from sinkablate.process.threads import considerate_threads


def attention_maps(model: nn.Module, image: Tensor, heads: list[Head]) -> list[AttentionMap]:
    """Return the attention map and the value norms of some heads on one image (1, C, H, W), by block and head."""
    recorder = MapRecorder(sorted(heads))
    run_recorder(model, [image], recorder)
    types = tuple(kind.label for kind in recorder.column_types)
    return [
        AttentionMap(*head, _array(weights), _array(recorder.value_norms[head][0]), types)
        for head, (weights,) in recorder.maps.items()
    ]


@considerate_threads()
def example_maps(run: Path, heads: pl.DataFrame, rule: str, count: int, images: int, *, trust: bool = False) -> Maps:
    """Return the attention that columns receive from the busiest heads of a run's last checkpoint.

    Args:
        run: Directory of the run.
        heads: Its table of heads.
        rule: The rule whose events are counted.
        count: Largest number of heads.
        images: Number of the run's probe images.
        trust: Allow commands that the run's configuration names for reading its images.

    Raises:
        UserError: There is no checkpoint, or its data cannot be read.
    """
    loaded = load_from_run(str(run), trust=trust)
    assert loaded.probe_set is not None
    probe = loaded.probe_set(images)
    recorder = MapRecorder(busiest(heads, rule, count), reduce=_mean_over_queries)
    run_recorder(loaded.model, [probe.images], recorder)
    pictures = () if loaded.toy is not None else tuple(_picture(loaded, image) for image in probe.images)
    kinds = tuple(kind.label for kind in recorder.column_types)
    return Maps(
        heads=tuple(recorder.maps),
        rule=rule,
        names=tuple(map(str, probe.names)),
        pictures=pictures,
        kinds=kinds,
        received=np.stack([_array(torch.stack(rows)) for rows in recorder.maps.values()]),
        grid=patch_grid(kinds.count("patch"), *pictures[0].shape[:2]) if pictures else (1, kinds.count("patch")),
    )


def _mean_over_queries(weights: Tensor) -> Tensor:
    """Mean of |A| over the queries, (N, M) -> (M,)."""
    return weights.abs().mean(dim=0)


def _array(x: Tensor) -> Floats:
    return x.float().numpy()


def picture_of(loaded: LoadedModel, image: Tensor) -> Floats | None:
    """Return an input (C, H, W) as a picture; None for a sequence or a text."""
    preprocessing = loaded.description.get("preprocessing")
    known = isinstance(preprocessing, dict) and {"mean", "std"} <= set(preprocessing)
    return _picture(loaded, image) if loaded.toy is None and known and image.ndim == 3 else None


def _picture(loaded: LoadedModel, image: Tensor) -> Floats:
    """Undo the normalization of an image (C, H, W); returns (H, W) or (H, W, 3)."""
    preprocessing = loaded.description["preprocessing"]
    mean, std = (torch.tensor(preprocessing[name]).view(-1, 1, 1) for name in ("mean", "std"))
    pixels = (image.cpu() * std + mean).clamp(0, 1).movedim(0, -1).float().numpy()
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3]

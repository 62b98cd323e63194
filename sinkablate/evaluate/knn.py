"""Weighted nearest-neighbor classification on frozen features, exact (DINO, arXiv 2104.14294)."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sinkablate.evaluate.accuracy import accuracies
from sinkablate.evaluate.features import feature_kind, select
from sinkablate.evaluate.rows import Row
from sinkablate.evaluate.subject import Subject

BLOCK_ROWS = 8192
"""Rows of training features that are compared with the queries at a time."""


class Neighbors(NamedTuple):
    """The nearest training images of each query, the nearest first."""

    similarity: Tensor
    """Cosine similarity, (q, k) fp32."""
    target: Tensor
    """Class, (q, k) int64."""


def knn(subject: Subject) -> list[Row]:
    """Classify the validation images by their nearest training images, for each number of neighbors."""
    config, sets = subject.config.knn, subject.classes
    train = subject.read("pooled", sets.train.images)
    kind = feature_kind(subject.loaded.model, subject.config.features.kind)
    numbers = list(dict.fromkeys(min(k, len(train)) for k in config.k))
    if max(config.k) > len(train):
        subject.note(f"knn.k={max(config.k)} is limited to the {len(train)} training images")
    queries = select(subject.read("pooled", sets.val.images).all(), kind).to(subject.device)
    chunks = (
        (select(rows, kind).to(subject.device), sets.train.targets[first : first + len(rows)].to(subject.device))
        for first, rows in train.chunks()
    )
    nearest = nearest_neighbors(queries, chunks, max(numbers), config.memory_gib * 2**30)
    classes = len(sets.train.classes)
    rows = []
    for k in numbers:
        scores = votes(nearest, k, config.temperature, classes)
        for top, value in accuracies(scores, sets.val.targets, above=0).items():
            rows.append(Row(task="knn", protocol=f"{kind} k={k}", metric=f"acc{top}", value=value))
    return rows


def nearest_neighbors(
    queries: Tensor, training: Iterable[tuple[Tensor, Tensor]], k: int, memory: float = 2**29
) -> Neighbors:
    """Return the k training images with the largest cosine similarity to each query.

    Every similarity is computed, in fp32; similarities that are not among the k largest so far are dropped block by
    block, so that at most `memory` bytes of them exist at a time.

    Args:
        queries: Features (q, D), of any precision.
        training: Chunks of features (m, D) and classes (m,); with fewer than k rows in all, all are returned.
        k: Number of neighbors.
        memory: Bytes.
    """
    queries = F.normalize(queries.float(), dim=1)
    best = Neighbors(queries.new_empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.long))
    best = Neighbors(best.similarity, best.target.to(queries.device))
    for chunk, targets in _blocks(training):
        features = F.normalize(chunk.float(), dim=1)
        step = max(1, int(memory / (4 * (len(features) + k))))
        parts = [
            _merged(Neighbors(best.similarity[rows], best.target[rows]), queries[rows] @ features.T, targets, k)
            for rows in (slice(start, start + step) for start in range(0, len(queries), step))
        ]
        best = Neighbors(torch.cat([part.similarity for part in parts]), torch.cat([part.target for part in parts]))
    return best


def _blocks(training: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Join consecutive chunks to blocks of about `BLOCK_ROWS` rows, from which the largest are selected at once."""
    waiting: list[tuple[Tensor, Tensor]] = []
    for chunk in training:
        waiting.append(chunk)
        if sum(len(targets) for _, targets in waiting) >= BLOCK_ROWS:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(chunks: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([features for features, _ in chunks]), torch.cat([targets for _, targets in chunks])


def _merged(best: Neighbors, similarity: Tensor, targets: Tensor, k: int) -> Neighbors:
    """Return the k largest of the best so far and of new similarities (q, m) to images of classes (m,)."""
    new, index = similarity.topk(min(k, similarity.shape[1]), dim=1)
    everything = torch.cat([best.similarity, new], dim=1)
    classes = torch.cat([best.target, targets[index]], dim=1)
    largest, index = everything.topk(min(k, everything.shape[1]), dim=1)
    return Neighbors(largest, classes.gather(1, index))


def votes(nearest: Neighbors, k: int, temperature: float, classes: int) -> Tensor:
    """Return the score of each class (q, classes): the sum of exp(s / temperature) over its k nearest neighbors."""
    weights = (nearest.similarity[:, :k].double() / temperature).exp()
    return weights.new_zeros(len(weights), classes).scatter_add_(1, nearest.target[:, :k], weights)

"""Which heads are edited on which images, and who lends them values: everything a diagnosis decides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sinkablate.config import SelectionConfig
from sinkablate.diagnostics.labels import Labels, apply, is_event
from sinkablate.diagnostics.records import Records
from sinkablate.diagnostics.rules import VERDICTS, Rule
from sinkablate.errors import UserError
from sinkablate.vit.init import generator

CLASSES = VERDICTS[:3]
"""NOP, broadcast, other."""

Head = tuple[int, int]
"""Block, head."""


def head_class(labels: Labels) -> str:
    """The commonest label among the events of one head (n,); `none` without any."""
    counts = [(labels == label).sum() for label in CLASSES]
    return CLASSES[int(np.argmax(counts))].name.lower() if sum(counts) else "none"


def choose_heads(labels: Labels, config: SelectionConfig) -> list[Head]:
    """The heads with enough events: of each class those with most of them, block 0 apart.

    Args:
        labels: Of every image, block and head, (n, L, H).
        config: How many.
    """
    events = is_event(labels).sum(axis=0)
    chosen: list[Head] = []
    for label in CLASSES:
        name, counts = label.name.lower(), (labels == label).sum(axis=0)
        for first, most in ((True, config.top_first_block), (False, config.top)):
            of_class = [
                (block, head)
                for block, head in np.ndindex(*events.shape)
                if (block == 0) == first
                and events[block, head] >= config.min_events
                and head_class(labels[:, block, head]) == name
            ]
            chosen += sorted(of_class, key=lambda place: (-counts[place], place))[:most]
    return sorted(chosen)


def nearest_heads(quantities: Mapping[str, NDArray[Any]], rule: Rule, labels: Labels, count: int = 5) -> list[str]:
    """A line for each of the heads that come closest to having events."""
    events, median = is_event(labels).sum(axis=0), np.nanmedian(quantities[rule.event_quantity], axis=0)
    places = sorted(np.ndindex(*events.shape), key=lambda place: (-events[place], -median[place], place))[:count]
    return [
        f"block {block} head {head}: {events[block, head]} events, median {rule.event_quantity} "
        f"{median[block, head]:.2f} (an event: {rule.event_min:g})"
        for block, head in places
    ]


def parse_heads(text: str, shape: tuple[int, int]) -> list[Head]:
    """`L:H,L:H` as pairs, rising; negative numbers count from the last.

    Raises:
        UserError: Not of this form, or outside the model.
    """
    found = set()
    for word in text.split(","):
        try:
            block, head = (int(part) for part in word.split(":"))
        except ValueError:
            raise UserError(f"heads={text}: {word!r} is not BLOCK:HEAD; a list looks like 3:0,5:2 (or auto)") from None
        if not (-shape[0] <= block < shape[0] and -shape[1] <= head < shape[1]):
            raise UserError(f"heads: {word} is outside the model's {shape[0]} blocks of {shape[1]} heads")
        found.add((block % shape[0], head % shape[1]))
    return sorted(found)


@dataclass(frozen=True)
class Plan:
    """Which of n images are edited in which of K heads.

    An image lends values to another in a head where its sink is of the same token type, and is an event if and only
    if the other's is; never to itself. Every draw is a function of the seed and the image, not of what else is done.
    """

    heads: list[Head]
    names: list[str]
    numbers: list[int]
    """Of the images among all pictures."""
    quantities: Mapping[str, NDArray[Any]]
    """Of the diagnosis, (n, L, H)."""
    labels: Labels
    """(n, L, H)."""
    everywhere: bool
    """Edit every image, event or not."""
    seed: int

    @classmethod
    def of(
        cls, stored: Mapping[str, NDArray[Any]], rule: Rule, heads: Sequence[Head], everywhere: bool, seed: int
    ) -> "Plan":
        """From the arrays of `per_image.npz`."""
        quantities = {name: array for name, array in stored.items() if array.ndim == 3}
        return cls(
            list(heads),
            stored["image_names"].tolist(),
            stored["image_numbers"].tolist(),
            quantities,
            apply(rule, quantities),
            everywhere,
            seed,
        )

    @classmethod
    def of_records(
        cls, records: Records, rule: Rule, heads: Sequence[Head], everywhere: bool, seed: int, name: str = "image"
    ) -> "Plan":
        """From measurements that no file holds; images are named by their places."""
        numbers = records.order.tolist()
        return cls(
            list(heads),
            [f"{name} {number}" for number in numbers],
            numbers,
            records.heads,
            apply(rule, records.heads),
            everywhere,
            seed,
        )

    @cached_property
    def events(self) -> NDArray[np.bool_]:
        """Where a head has an event, (n, L, H)."""
        return is_event(self.labels)

    def edited(self, image: int) -> list[Head]:
        """Heads that are edited on an image."""
        return [place for place in self.heads if self.everywhere or self.events[image, *place]]

    def sink(self, image: int, place: Head) -> int:
        """Dominant column."""
        return int(self.quantities["sink_idx"][image, *place])

    def donor_candidates(self, image: int, place: Head) -> list[int]:
        """Images that may lend, in their order."""
        kinds, events = self.quantities["sink_type"][:, *place], self.events[:, *place]
        fits = (kinds == kinds[image]) & (events == events[image])
        fits[image] = False
        return np.flatnonzero(fits).tolist()

    def donor(self, image: int, place: Head) -> int | None:
        """The image whose value an image gets; None where no other fits."""
        donor_candidates = self.donor_candidates(image, place)
        return donor_candidates[self.draw(image, f"donor {place}", len(donor_candidates))] if donor_candidates else None

    def non_sink_head(self, image: int, place: Head) -> int | None:
        """Another head of the same block that is no sink on this image; None where all are."""
        block, head = place
        calm = [other for other, sinks in enumerate(self.events[image, block]) if other != head and not sinks]
        return calm[self.draw(image, f"head {place}", len(calm))] if calm else None

    def other_token(self, image: int, place: Head, num_tokens: int, what: str) -> int:
        """A token that is not the sink; there are at least two."""
        sink = self.sink(image, place)
        count = num_tokens - (sink < num_tokens)
        drawn = self.draw(image, f"{what} {place}", count)
        return drawn + (sink < num_tokens and drawn >= sink)

    def direction(self, image: int, place: Head, width: int) -> torch.Tensor:
        """A random vector (d,), float64."""
        g = generator(self.seed, f"{self.names[image]}/{self.numbers[image]}/direction {place}")
        return torch.randn(width, generator=g, dtype=torch.float64)

    def draw(self, image: int, what: str, count: int) -> int:
        """A number below `count`."""
        g = generator(self.seed, f"{self.names[image]}/{self.numbers[image]}/{what}")
        return int(torch.randint(count, (1,), generator=g))

"""Choose the heads to edit, the images to edit them on, and the donors of values, all from a diagnosis."""

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
"""The labels of events: NOP, broadcast, other."""

Head = tuple[int, int]
"""Index of the block, and index of the head in it."""


def head_class(labels: Labels) -> str:
    """Return the most common label among the events of one head (n,), or `none` if it has no event."""
    counts = [(labels == label).sum() for label in CLASSES]
    return CLASSES[int(np.argmax(counts))].name.lower() if sum(counts) else "none"


def choose_heads(labels: Labels, config: SelectionConfig) -> list[Head]:
    """Choose, of the heads with enough events, those with the most in each class; block 0 has its own quota.

    Args:
        labels: Labels by image, block and head, (n, L, H).
        config: How many events a head needs, and how many heads to choose.
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
            chosen += sorted(of_class, key=lambda pair: (-counts[pair], pair))[:most]
    return sorted(chosen)


def nearest_heads(quantities: Mapping[str, NDArray[Any]], rule: Rule, labels: Labels, count: int = 5) -> list[str]:
    """Describe the heads that come closest to having events, one per line."""
    events, median = is_event(labels).sum(axis=0), np.nanmedian(quantities[rule.event_quantity], axis=0)
    nearest = sorted(np.ndindex(*events.shape), key=lambda pair: (-events[pair], -median[pair], pair))[:count]
    return [
        f"block {block} head {head}: {events[block, head]} events, median {rule.event_quantity} "
        f"{median[block, head]:.2f} (an event needs {rule.event_min:g})"
        for block, head in nearest
    ]


def parse_heads(text: str, shape: tuple[int, int]) -> list[Head]:
    """Parse `L:H,L:H` into sorted pairs; negative numbers count from the end.

    Raises:
        UserError: The text does not have this form, or a head is outside the model.
    """
    heads = set()
    for word in text.split(","):
        try:
            block, head = (int(part) for part in word.split(":"))
        except ValueError:
            raise UserError(
                f"heads={text}: {word!r} is not BLOCK:HEAD; write a list such as 3:0,5:2, or auto"
            ) from None
        if not (-shape[0] <= block < shape[0] and -shape[1] <= head < shape[1]):
            raise UserError(f"heads: {word} is outside the model's {shape[0]} blocks of {shape[1]} heads")
        heads.add((block % shape[0], head % shape[1]))
    return sorted(heads)


@dataclass(frozen=True)
class Plan:
    """Which of K heads are edited on which of n images.

    In each head, the donor of an image is another image whose sink has the same token type, and which has an event if
    and only if the image has one. Every draw depends on the seed and the image only, not on what else is computed.
    """

    heads: list[Head]
    names: list[str]
    numbers: list[int]
    """Number of each image among all images."""
    quantities: Mapping[str, NDArray[Any]]
    """Quantities of the diagnosis, each (n, L, H)."""
    labels: Labels
    """Labels by image, block and head, (n, L, H)."""
    everywhere: bool
    """Edit every image, whether or not the head has an event on it."""
    seed: int

    @classmethod
    def of(
        cls, stored: Mapping[str, NDArray[Any]], rule: Rule, heads: Sequence[Head], everywhere: bool, seed: int
    ) -> "Plan":
        """Make a plan from the arrays of `per_image.npz`."""
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
        """Make a plan from measurements in memory; images are named by their numbers."""
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
        """Whether a head has an event on an image, (n, L, H)."""
        return is_event(self.labels)

    def edited(self, image: int) -> list[Head]:
        """Return the heads that are edited on an image."""
        return [head for head in self.heads if self.everywhere or self.events[image, *head]]

    def sink(self, image: int, head: Head) -> int:
        """Return the dominant column of a head on an image."""
        return int(self.quantities["sink_idx"][image, *head])

    def donor_candidates(self, image: int, head: Head) -> list[int]:
        """Return the numbers of the images that can be the donor, sorted."""
        token_types, events = self.quantities["sink_type"][:, *head], self.events[:, *head]
        fits = (token_types == token_types[image]) & (events == events[image])
        fits[image] = False
        return np.flatnonzero(fits).tolist()

    def donor(self, image: int, head: Head) -> int | None:
        """Draw the image whose value an image gets; None if no other image qualifies."""
        candidates = self.donor_candidates(image, head)
        return candidates[self.draw(image, f"donor {head}", len(candidates))] if candidates else None

    def non_sink_head(self, image: int, head: Head) -> int | None:
        """Draw another head of the block without an event on this image; None if all of them have one."""
        block, own = head
        others = [other for other, event in enumerate(self.events[image, block]) if other != own and not event]
        return others[self.draw(image, f"head {head}", len(others))] if others else None

    def other_token(self, image: int, head: Head, num_tokens: int, what: str) -> int:
        """Draw a token other than the sink; a model has at least two tokens."""
        sink = self.sink(image, head)
        count = num_tokens - (sink < num_tokens)
        drawn = self.draw(image, f"{what} {head}", count)
        return drawn + (sink < num_tokens and drawn >= sink)

    def direction(self, image: int, head: Head, width: int) -> torch.Tensor:
        """Draw a random vector (d,) in float64."""
        g = generator(self.seed, f"{self.names[image]}/{self.numbers[image]}/direction {head}")
        return torch.randn(width, generator=g, dtype=torch.float64)

    def draw(self, image: int, what: str, count: int) -> int:
        """Draw an integer from 0 to `count` - 1."""
        g = generator(self.seed, f"{self.names[image]}/{self.numbers[image]}/{what}")
        return int(torch.randint(count, (1,), generator=g))

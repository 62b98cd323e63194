"""The sites of edits: one head, or one global pathway, on one image.

A site offers what an edit can put in: zeros, values of other images (donors), random directions. Whatever is
unavailable, such as a donor when there are too few images, is None.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sinkablate.diagnostics.view import BlockView
from sinkablate.errors import UserError
from sinkablate.intervene.changes import Change, change_of_redirect, change_of_value, head_weights
from sinkablate.intervene.selection import Head, Plan
from sinkablate.intervene.values import Array, Values


@dataclass(frozen=True)
class HeadSite:
    """One head on one image."""

    view: BlockView
    """The head's block on this image."""
    plan: Plan
    values: Values
    """Values of all images, from which donors are taken."""
    image: int
    """Index of the image in the plan."""
    place: Head
    """Block and head."""

    @property
    def head(self) -> int:
        """Index of the head in its block."""
        return self.place[1]

    @property
    def output_shape(self) -> tuple[int, int]:
        """Shape (N, d) of the head's output, which an edit changes."""
        return self.view.layout.num_tokens, self.view.v.shape[-1]

    @cached_property
    def weights(self) -> Tensor:
        """Attention weights A, (N, M)."""
        return head_weights(self.view, self.head)

    @cached_property
    def sink(self) -> int:
        """Index s of the dominant column."""
        return self.plan.sink(self.image, self.place)

    @property
    def value(self) -> Tensor:
        """Value v_s of the sink after a value gate, (d,)."""
        return self.view.v[0, self.head, self.sink]

    @cached_property
    def donor(self) -> int | None:
        """Index of the image that a single value is taken from."""
        return self.plan.donor(self.image, self.place)

    def mean_value(self, values: Array) -> Tensor | None:
        """Mean of an array (n, d) over all images that qualify as donors, in float64, (d,)."""
        if self.donor is None:
            return None
        candidates = self.plan.donor_candidates(self.image, self.place)
        return torch.from_numpy(values[candidates].astype(np.float64).mean(axis=0))

    def donor_value(self, values: Array) -> Tensor | None:
        """Row of the donor in an array (n, d), (d,)."""
        return None if self.donor is None else torch.from_numpy(values[self.donor])

    @property
    def sink_values(self) -> Array:
        """Values of the sink on every image, (n, d)."""
        return self.values.sink[:, self._column]

    @property
    def ordinary_values(self) -> Array:
        """Value of a random token other than the sink on every image, (n, d)."""
        return self.values.ordinary[:, self._column]

    @cached_property
    def direction(self) -> Tensor:
        """A random direction v' for which ||W v'|| = ||W v_s||, (d,).

        What counts is the size of the write: a NOP sink may have a large value that the output map W takes to zero.
        """
        own, out_map = self.value, self.view.out_map[self.head]
        turned = self.plan.direction(self.image, self.place, len(own)).to(own)
        return turned * ((out_map @ own).norm() / (out_map @ turned).norm())

    @cached_property
    def register(self) -> int | None:
        """Index of the register with the largest mean attention of the head; None if that is the sink itself."""
        layout = self.view.layout
        if not layout.num_registers:
            return None
        register = int(self.weights[:, layout.num_cls : layout.num_prefix].abs().mean(0).argmax())
        return None if layout.num_cls + register == self.sink else register

    @property
    def register_values(self) -> Array:
        """Values of that register on every image, (n, d)."""
        return self.values.registers[:, self._column, self.register]

    def replace_value(self, value: Tensor | None, column: int | None = None, head: int | None = None) -> Change | None:
        """Replace one value and keep the attention.

        Args:
            value: The new value (d,); None returns None: there is nothing to put in.
            column: The column whose value is replaced; the sink by default.
            head: The head of the block whose value is replaced; the site's own by default.
        """
        if value is None:
            return None
        require_shape(value, tuple(self.value.shape), "the new value")
        changed = self.head if head is None else head
        weights = self.weights if head is None else head_weights(self.view, head)
        at, new = self.sink if column is None else column, value.to(self.value)
        return Change("", self.head, changed, change_of_value(self.view, changed, weights, at, new), at, new)

    def replace_register(self, value: Tensor | None) -> Change | None:
        """Replace the value of the most attended register and keep the attention; None if that is the sink."""
        return None if self.register is None else self.replace_value(value, self.view.layout.num_cls + self.register)

    def remove_sink(self) -> Change | None:
        """Remove the sink's column from the attention and renormalize the rows; None if there is no other column."""
        if self.weights.shape[-1] < 2:
            return None
        return Change("", self.head, self.head, change_of_redirect(self.view, self.head, self.weights, self.sink))

    @property
    def zeros(self) -> Tensor:
        """A value of zeros, (d,)."""
        return torch.zeros_like(self.value)

    @cached_property
    def random_token(self) -> int | None:
        """Index of a random token other than the sink."""
        count = self.view.layout.num_tokens
        return self.plan.other_token(self.image, self.place, count, "random_value") if count > 1 else None

    @cached_property
    def non_sink_head(self) -> int | None:
        """Index of a random other head of the block that has no sink on this image."""
        return self.plan.non_sink_head(self.image, self.place)

    @property
    def _column(self) -> int:
        """Index of the head among the chosen ones."""
        return self.plan.heads.index(self.place)


@dataclass(frozen=True)
class PathwaySite:
    """One block's global pathway on one image."""

    state: Tensor
    """Global state g of this image, (K,)."""
    plan: Plan
    states: Array
    """g of every image, (n, K)."""
    image: int
    """Index of the image in the plan."""
    block: int

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape (K,) of the state, which an edit changes."""
        return tuple(self.state.shape)

    @property
    def zeros(self) -> Tensor:
        """A state of zeros, (K,)."""
        return torch.zeros_like(self.state)

    @property
    def mean_state(self) -> Tensor | None:
        """Mean of g over the other images, in float64, (K,)."""
        if len(self.states) < 2:
            return None
        return torch.from_numpy(np.delete(self.states, self.image, axis=0).astype(np.float64).mean(axis=0))

    @property
    def donor_state(self) -> Tensor | None:
        """g of another image, (K,)."""
        donor = pathway_donor(self.plan, self.image, self.block)
        return None if donor is None else torch.from_numpy(self.states[donor])

    def replace_state(self, state: Tensor | None) -> Change | None:
        """Replace g with a state (K,); None returns None."""
        if state is None:
            return None
        require_shape(state, self.output_shape, "the new state")
        return Change("", -1, -1, state.to(self.state) - self.state)


def require_shape(tensor: Tensor, expected: tuple[int, ...], name: str) -> None:
    """Refuse a tensor of the wrong shape, which would silently be broadcast.

    Raises:
        UserError: The shape differs; the message begins with `name`.
    """
    if tuple(tensor.shape) != expected:
        raise UserError(f"{name} has shape {tuple(tensor.shape)}, expected {expected}")


def pathway_donor(plan: Plan, image: int, block: int) -> int | None:
    """Draw another image; None if there is only one."""
    count = len(plan.names) - 1
    if count < 1:
        return None
    drawn = plan.draw(image, f"pathway donor {block}", count)
    return drawn + (drawn >= image)

"""The edits of one image in one block: what `edits.py` defines, filled with values of this image and of its donors."""

from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sinkablate.diagnostics.view import BlockView
from sinkablate.intervene.edits import (
    REPLACEMENTS,
    SINK_EDITS,
    Edit,
    change_of_redirect,
    change_of_value,
    head_weights,
    replaced_value,
)
from sinkablate.intervene.selection import Head, Plan
from sinkablate.intervene.values import Array, Values


def edits_of_head(
    view: BlockView, plan: Plan, values: Values, image: int, place: Head, names: Collection[str]
) -> list[Edit]:
    """Every edit of one head that can be made on an image; those that lack a lender or another token are left out.

    Args:
        view: The head's block on this image.
        plan: Sinks, donor_candidates and draws.
        values: What donor_candidates lend.
        image: Number of the image in the plan.
        place: Block and head.
        names: Which of `EDITS`.
    """
    _, head = place
    weights, sink = head_weights(view, head), plan.sink(image, place)
    found = []
    column, donor_candidates, donor = (
        plan.heads.index(place),
        plan.donor_candidates(image, place),
        plan.donor(image, place),
    )
    own, others = view.v[0, head, sink], donor_values(values.sink[:, column], donor_candidates, donor)
    if donor is not None:
        others["ordinary"] = torch.from_numpy(values.ordinary[donor, column])
    for name in SINK_EDITS[:-1]:
        if name in names and (name in ("zero_value", "rotated_value") or others):
            value = replaced_value(name, own, others, plan.direction(image, place, len(own)), view.out_map[head])
            found.append(_value_edit(name, view, head, weights, sink, value))
    if "redirect" in names and weights.shape[-1] > 1:
        found.append(Edit("redirect", head, head, change_of_redirect(view, head, weights, sink)))
    if "random_value" in names and view.layout.num_tokens > 1:
        other = plan.other_token(image, place, view.layout.num_tokens, "random_value")
        found.append(_value_edit("random_value", view, head, weights, other, torch.zeros_like(own)))
    calm = plan.non_sink_head(image, place) if "random_head" in names else None
    if calm is not None:
        zero = _value_edit(
            "random_head",
            view,
            calm,
            head_weights(view, calm),
            plan.sink(image, (place[0], calm)),
            torch.zeros_like(own),
        )
        found.append(replace(zero, head=head))
    if "register" in names and view.layout.num_registers:
        found += _register_edits(
            view,
            head,
            sink,
            weights,
            lambda register: donor_values(values.registers[:, column, register], donor_candidates, donor),
        )
    return found


def _value_edit(name: str, view: BlockView, head: int, weights: Tensor, column: int, value: Tensor) -> Edit:
    return Edit(name, head, head, change_of_value(view, head, weights, column, value), column, value)


def _register_edits(
    view: BlockView, head: int, sink: int, weights: Tensor, lent_by: Callable[[int], dict[str, Tensor]]
) -> list[Edit]:
    """The register that receives most of the head's attention, its value to zero, to the mean, to the donor's."""
    layout = view.layout
    register = int(weights[:, layout.num_cls : layout.num_prefix].abs().mean(0).argmax())
    column = layout.num_cls + register
    if column == sink:  # what is done to it already
        return []
    own = view.v[0, head, column]
    offers = {"zero": torch.zeros_like(own), **lent_by(register)}
    return [
        _value_edit(f"register_{name}", view, head, weights, column, offers[name].to(own))
        for name in REPLACEMENTS
        if name in offers
    ]


def pathway_edits(state: Tensor, plan: Plan, states: Array, image: int, block: int) -> list[Edit]:
    """The global state of a block to zero, to the mean over the other images, to another image's.

    Args:
        state: g of this image (K,).
        plan: For the draw.
        states: g of every image (n, K).
        image: Number of the image.
        block: Number of the block.
    """
    offers = {"zero": torch.zeros_like(state)}
    donor = pathway_donor(plan, image, block)
    if donor is not None:
        others = np.delete(states, image, axis=0).astype(np.float64).mean(axis=0)
        offers |= {"mean": torch.from_numpy(others), "donor": torch.from_numpy(states[donor])}
    return [Edit(f"pathway_{name}", -1, -1, value.to(state) - state) for name, value in offers.items()]


def pathway_donor(plan: Plan, image: int, block: int) -> int | None:
    """Another image, any; None where there is one only."""
    count = len(plan.names) - 1
    if count < 1:
        return None
    drawn = plan.draw(image, f"pathway donor {block}", count)
    return drawn + (drawn >= image)


def donor_values(values: Array, donor_candidates: list[int], donor: int | None) -> dict[str, Tensor]:
    """`mean` over the donor_candidates, in float64, and `donor`, (d,) each; nothing without a lender.

    Args:
        values: Of every image (n, d).
        donor_candidates: Who may lend.
        donor: The one of them that was drawn.
    """
    if donor is None:
        return {}
    return {
        "mean": torch.from_numpy(values[donor_candidates].astype(np.float64).mean(axis=0)),
        "donor": torch.from_numpy(values[donor]),
    }

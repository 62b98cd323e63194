"""Make all edits of an image, block by block, and measure one row for each edit."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from sinkablate.diagnostics.rules import Label
from sinkablate.diagnostics.view import BlockView
from sinkablate.intervene.changes import Change, change_of_value, head_output, head_weights
from sinkablate.intervene.edit import Edit
from sinkablate.intervene.effects import Judge, common_share, cosine, is_rounding, mean_change, relative_change
from sinkablate.intervene.replay import ActivationCache, Replay, copies
from sinkablate.intervene.selection import Plan
from sinkablate.intervene.sites import HeadSite, PathwaySite, pathway_donor
from sinkablate.intervene.values import Values, pathway_blocks, state
from sinkablate.vit.anatomy import block_parts, final_norm

COPIED = {"mass": "mass", "entropy": "entropy", "token_norm": "sink_token_norm", "ratio_out": "ratio_out"}
"""Column -> quantity of the diagnosis."""


@dataclass(frozen=True)
class Editor:
    """Makes and measures all edits of an image.

    The numbers of a row depend on its image only: the copies run in groups whose size follows from the image.
    """

    model: nn.Module
    """In eval mode, without gradients."""
    plan: Plan
    values: Values
    edits: list[Edit]
    judge: Judge

    @cached_property
    def pathways(self) -> list[int]:
        """Blocks whose pathway is edited."""
        return pathway_blocks(self.model) if any(edit.of_pathway for edit in self.edits) else []

    @cached_property
    def replay(self) -> Replay:
        """Replays the blocks in which something may be edited, in ascending order."""
        return Replay(self.model, sorted({block for block, _ in self.plan.heads} | set(self.pathways)))

    @torch.no_grad()
    def rows(self, image: int, tensor: Tensor) -> list[dict[str, Any]]:
        """Return the rows of one image (1, C, H, W), which has the index `image` in the plan."""
        cache = self.replay.run_with_cache(tensor)
        return [row for block in self.replay.parts for row in self._rows_of_block(cache, image, tensor, block)]

    def changes(self, cache: ActivationCache, image: int, block: int) -> list[Change]:
        """Return everything that is changed in one block on one image, head by head, the pathway last."""
        view, plan = cache.views[block], self.plan
        sites: list[HeadSite | PathwaySite] = [
            HeadSite(view, plan, self.values, image, head) for head in plan.edited(image) if head[0] == block
        ]
        if block in self.pathways:
            states = self.values.states[:, self.pathways.index(block)]
            sites.append(PathwaySite(state(self.model, cache, block), plan, states, image, block))
        return [
            change
            for site in sites
            for edit in self.edits
            if edit.of_pathway == isinstance(site, PathwaySite) and (change := edit.change(site)) is not None
        ]

    def _rows_of_block(
        self, cache: ActivationCache, image: int, tensor: Tensor, block: int
    ) -> Iterator[dict[str, Any]]:
        changes, view = self.changes(cache, image, block), cache.views[block]
        donors = {head: self._donor(head, image, block) for head in {change.head for change in changes}}
        known = {head: self._of_head(view, head, image, block) for head in donors if head >= 0}
        wrote = {
            head: _written(view, head, head_output(view, head, head_weights(view, head)))
            for head in {change.changed_head for change in changes if not change.of_pathway}
        }
        size = max(1, copies(view.layout.num_tokens) - 1)
        for start in range(0, len(changes), size):
            group = changes[start : start + size]
            last = self.replay.from_block(cache, block, *updates(self.model, cache, block, group))
            donors_of_group = [donors[change.head] for change in group]
            measured = self._measure(last, view, group, donors_of_group, image, block) | self.judge(
                last, tensor, self.plan.numbers[image]
            )
            for index, (change, donor) in enumerate(zip(group, donors_of_group, strict=True)):
                row = {
                    "image": self.plan.names[image],
                    "number": self.plan.numbers[image],
                    "block": block,
                    "head": change.head,
                    "edit": change.edit,
                    "changed_head": change.changed_head,
                    "donor": None if donor is None else self.plan.names[donor],
                    **known.get(change.head, {}),
                }
                if not change.of_pathway:
                    written = _written(view, change.changed_head, change.change)
                    row["head_change"] = float(written / wrote[change.changed_head])
                yield row | {name: float(values[index]) for name, values in measured.items()}

    def _measure(
        self, last: Tensor, view: BlockView, changes: list[Change], donors: list[int | None], image: int, block: int
    ) -> dict[str, Tensor]:
        tokens = final_norm(self.model)(last)
        own, edited = tokens[0], tokens[1:]
        counted = torch.stack([self._counted(view, change, image, block) for change in changes])
        here = torch.from_numpy(self.values.outputs[image])
        toward = torch.stack(
            [
                torch.full_like(here, torch.nan)
                if donor is None
                else torch.from_numpy(self.values.outputs[donor]) - here
                for donor in donors
            ]
        ).to(own)
        effect = relative_change(own, edited, counted)
        directions = {
            "common_share": common_share(own, edited, counted),
            "donor_cosine": cosine(mean_change(own, edited, counted), toward),
        }
        return {
            "effect": effect,
            **{name: values.masked_fill(is_rounding(effect), torch.nan) for name, values in directions.items()},
        }

    def _counted(self, view: BlockView, change: Change, image: int, block: int) -> Tensor:
        """The patch tokens without the sink, (N,) bool."""
        counted = torch.zeros(view.layout.num_tokens, dtype=torch.bool, device=view.q.device)
        counted[view.layout.num_prefix :] = True
        if not change.of_pathway:
            sink = self.plan.sink(image, (block, change.head))
            counted[sink : sink + 1] = False  # an empty slice if the sink is not a token
        return counted

    def _donor(self, head: int, image: int, block: int) -> int | None:
        """Return the donor of a head, or of the pathway (-1)."""
        return pathway_donor(self.plan, image, block) if head < 0 else self.plan.donor(image, (block, head))

    def _of_head(self, view: BlockView, head: int, image: int, block: int) -> dict[str, Any]:
        """Return what is known about a head on an image before any edit."""
        plan, index = self.plan, (image, block, head)
        sink = plan.sink(image, (block, head))
        zero = torch.zeros_like(view.v[0, head, sink])
        handed = change_of_value(view, head, head_weights(view, head), sink, zero)
        return {
            "label": Label(int(plan.labels[index])).name.lower(),
            "event": bool(plan.events[index]),
            "sink_idx": sink,
            "token_type": view.column_kinds()[sink].label,
            **{name: float(plan.quantities[quantity][index]) for name, quantity in COPIED.items()},
            "local_size": float(_written(view, head, handed)),
        }


def _written(view: BlockView, head: int, output: Tensor) -> Tensor:
    """Return the norm of what a head's output (N, d) adds to the residual stream."""
    return (output @ view.out_map[head].T).norm()


def updates(
    model: nn.Module, cache: ActivationCache, block: int, changes: list[Change]
) -> tuple[Tensor, Tensor | None]:
    """Return the updates of a block's attention and pathway, first unedited, then with each change, (1 + E, N, D) each.

    The second is None if no change is one of the pathway.
    """
    view, parts = cache.views[block], block_parts(model, block)
    assert view.update is not None
    w = parts.out_weight.unflatten(1, (parts.num_heads, -1))
    added = torch.zeros(1 + len(changes), *view.update.shape[1:]).to(view.update)
    from_pathway = None
    for copy, change in enumerate(changes, 1):
        if not change.of_pathway:
            added[copy] = change.change @ w[:, change.changed_head].T
            continue
        pathway: Any = parts.pathway
        if from_pathway is None:
            from_pathway = cache.pathways[block].repeat(len(added), 1, 1)
        from_pathway[copy] += (pathway.openness(cache.pathway_inputs[block]) * pathway.proj(change.change))[0]
    return view.update + added, from_pathway

"""Panel 10 of a report, attention maps on example images, as a figure for paper."""

from collections.abc import Sequence

import polars as pl
from matplotlib.axes import Axes

from sinkablate.diagnostics.rules import ADAPTIVE_RULE
from sinkablate.figures.maps import Maps, busiest
from sinkablate.figures.sinks import Drawn
from sinkablate.report.frames import frames, keyed, some_runs
from sinkablate.report.runs import Run

MOST_ROWS = 12
"""Of the figure of attention maps."""


def attention(maps: Sequence[tuple[Run, Maps]]) -> Drawn | None:
    """Panel 10: what the patches receive from the busiest heads, image by image; fewer heads where there are many runs.

    The data hold every column of every map.
    """
    if not maps:
        return None
    of_run = dict(zip([run.name for run, _ in maps], [each for _, each in maps], strict=True))
    some, part = some_runs([run for run, _ in maps])
    most = max(1, MOST_ROWS // len(some))
    shown = [(run, of_run[run.name], place) for run in some for place in _busiest_of(run, of_run[run.name], most)]
    across = max(len(each.names) for _, each in maps)
    seen = {each.names: each.pictures for _, each in maps if each.pictures}
    (names, above), *others = seen.items() or [((), ())]
    if others or any(each.names != names[: len(each.names)] for _, each in maps):
        above = ()  # not all of them look at the same images
    figure, axes = frames([""] * ((len(shown) + bool(above)) * across), size=(1.6, 1.65), share=False, columns=across)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    for axis, picture in zip(axes, above, strict=False):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
    for row, (run, each, place) in enumerate(shown, 1 if above else 0):
        _row_of_maps(axes[row * across : (row + 1) * across], run, each, place)
    keyed(
        figure,
        (),
        "Attention that patches receive, mean over queries; of each run, the heads with most events\n"
        f"(rule {ADAPTIVE_RULE}), then with most mass on one column" + (f"; {part}" if part else ""),
    )
    rows = [
        {
            "run": run.name,
            "block": block,
            "head": head,
            "image": name,
            "column": number,
            "token_type": kind,
            "mean_attention": float(value),
        }
        for run, each in maps
        for place, (block, head) in enumerate(each.heads)
        for image, name in enumerate(each.names)
        for number, (kind, value) in enumerate(zip(each.kinds, each.received[place, image], strict=True))
    ]
    return figure, pl.DataFrame(rows)


def _busiest_of(run: Run, maps: Maps, count: int) -> list[int]:
    """Places in the maps of the run's `count` busiest heads, by block and head."""
    if run.heads is None:
        return list(range(min(count, len(maps.heads))))
    mapped = run.heads.filter(pl.struct("block", "head").is_in([{"block": b, "head": h} for b, h in maps.heads]))
    return [maps.heads.index(key) for key in busiest(mapped, ADAPTIVE_RULE, count)]


def _row_of_maps(axes: Sequence[Axes], run: Run, maps: Maps, place: int) -> None:
    """One head, an image a frame."""
    block, head = maps.heads[place]
    for image, axis in enumerate(axes):
        if image >= len(maps.names):
            axis.set_visible(False)
            continue
        patches = maps.patches(place, image)
        axis.imshow(patches, cmap="magma", vmin=0, aspect="equal" if patches.shape[0] > 1 else "auto")
        kinds = [f"{kind} {share:.2f}" for kind, share in maps.shares(place, image).items() if kind != "patch"]
        axis.set_xlabel(", ".join([f"max {patches.max():.2f}", *kinds]), fontsize=6)
    axes[0].set_title(f"{run.name}: block {block}, head {head}", fontsize=7, loc="left")

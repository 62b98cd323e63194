"""The figure of attention maps on example images."""

from collections.abc import Sequence

import polars as pl
from matplotlib.axes import Axes

from sinkablate.figures.maps import Maps, busiest
from sinkablate.figures.sinks import Drawn
from sinkablate.report.frames import frames, keyed, some_runs
from sinkablate.report.run import Run, kind_names

MOST_ROWS = 12
"""Largest number of rows, one per head."""


def attention(maps: Sequence[tuple[Run, Maps]]) -> Drawn | None:
    """Draw the attention that patches receive in the busiest heads, one row per head and one frame per image.

    With many runs, fewer heads of each are drawn. The data hold every column of every map.
    """
    if not maps:
        return None
    of_run = {run.name: run_maps for run, run_maps in maps}
    shown_runs, part = some_runs([run for run, _ in maps])
    most = max(1, MOST_ROWS // len(shown_runs))
    shown = [(run, of_run[run.name], index) for run in shown_runs for index in _busiest_of(run, of_run[run.name], most)]
    across = max(len(run_maps.names) for _, run_maps in maps)
    pictures = {run_maps.names: run_maps.pictures for _, run_maps in maps if run_maps.pictures}
    (names, above), *others = pictures.items() or [((), ())]
    if others or any(run_maps.names != names[: len(run_maps.names)] for _, run_maps in maps):
        above = ()  # the maps are not all of the same images
    figure, axes = frames([""] * ((len(shown) + bool(above)) * across), size=(1.6, 1.65), share=False, columns=across)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    for axis, picture in zip(axes, above, strict=False):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
    for row, (run, run_maps, index) in enumerate(shown, 1 if above else 0):
        _row_of_maps(axes[row * across : (row + 1) * across], run, run_maps, index)
    rules = " or ".join(dict.fromkeys(run_maps.rule for _, run_maps in maps))
    keyed(
        figure,
        (),
        "Attention that patches receive, mean over queries; for each run, the heads with the most events\n"
        f"(rule {rules}), then with the most mass on one column" + (f"; {part}" if part else ""),
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
        for run, run_maps in maps
        for index, (block, head) in enumerate(run_maps.heads)
        for image, name in enumerate(run_maps.names)
        for number, (kind, value) in enumerate(zip(run_maps.kinds, run_maps.received[index, image], strict=True))
    ]
    return figure, pl.DataFrame(rows)


def _busiest_of(run: Run, maps: Maps, count: int) -> list[int]:
    """Indices into the maps of the run's `count` busiest heads, by block and head."""
    if run.heads is None:
        return list(range(min(count, len(maps.heads))))
    mapped = run.heads.filter(pl.struct("block", "head").is_in([{"block": b, "head": h} for b, h in maps.heads]))
    return [maps.heads.index(key) for key in busiest(mapped, maps.rule, count)]


def _row_of_maps(axes: Sequence[Axes], run: Run, maps: Maps, index: int) -> None:
    """Draw the maps of one head, one frame per image."""
    block, head = maps.heads[index]
    for image, axis in enumerate(axes):
        if image >= len(maps.names):
            axis.set_visible(False)
            continue
        patches = maps.patches(index, image)
        axis.imshow(patches, cmap="magma", vmin=0, aspect="equal" if patches.shape[0] > 1 else "auto")
        names = kind_names([run])
        kinds = [f"{names[kind]} {share:.2f}" for kind, share in maps.shares(index, image).items() if kind != "patch"]
        axis.set_xlabel(", ".join([f"max {patches.max():.2f}", *kinds]), fontsize=6)
    axes[0].set_title(f"{run.name}: block {block}, head {head}", fontsize=7, loc="left")

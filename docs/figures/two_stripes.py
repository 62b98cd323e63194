"""Draw the first figure of the README: two heads with the same stripe, one that broadcasts and one that writes nothing.

    make two_stripes                  # trains the NOP toy and downloads timm's weights of DINOv2 ViT-S/14
    make two_stripes WEIGHTS=FILE     # takes these weights from a local file

The first row is a head of the pretrained ViT-S/14 on scikit-image's photograph of coins, at 112 pixels (8 x 8 patches),
the second the only head of the NOP toy on its first probe sequence. two_stripes.csv holds every number that is drawn.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import skimage.data
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

import sinkablate as sa
from sinkablate.diagnose.maps import attention_maps
from sinkablate.figures.sinks import save

MODEL = "vit_small_patch14_dinov2.lvd142m"
BLOCK, HEAD, SIDE = 10, 2, 112
COLORS = {"broadcast": "#D55E00", "nop": "#0072B2"}
GRAY = "#9AA5B1"
WORDS = {
    "broadcast": (
        "BROADCAST",
        "The sink writes about as much\nas any other token, so every\ntoken receives the same vector.",
    ),
    "nop": ("NOP", "The sink writes nothing, so\ntokens that look at it\ndo not change."),
}


@dataclass(frozen=True)
class Row:
    """One head on one input."""

    title: str
    sink_name: str
    label: str
    """Label of the head on this input."""
    picture: NDArray[np.float32]
    caption: str
    weights: NDArray[np.float32]
    """Attention weights A (N, N)."""
    norms: NDArray[np.float32]
    """Norm of what each key writes into the residual stream, (N,)."""

    @property
    def sink(self) -> int:
        """The key that receives the most attention."""
        return int(self.weights.mean(0).argmax())

    @property
    def relative(self) -> NDArray[np.float32]:
        """`norms` over the mean of the keys that are not the sink."""
        return self.norms / np.delete(self.norms, self.sink).mean()

    @property
    def table(self) -> pl.DataFrame:
        """One row per key."""
        name = self.title.replace("\n", " ")
        columns = {"mean_attention": self.weights.mean(0), "relative_norm": self.relative}
        return pl.DataFrame({"head": name, "label": self.label, "key": np.arange(len(self.norms)), **columns})


def of_vit(weights: str | None) -> Row:
    """A broadcast head of a pretrained vision transformer."""
    model = sa.create_model(MODEL, pretrained=weights is None, checkpoint=weights, img_size=SIDE, num_classes=0)
    photo = Image.fromarray(skimage.data.coins()).convert("RGB")
    side = min(photo.size)
    square = photo.crop((left := (photo.width - side) // 2, 0, left + side, side)).resize((SIDE, SIDE))
    pixels = torch.from_numpy(np.asarray(square, np.float32) / 255).movedim(-1, 0)
    mean, std = (torch.tensor(model.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    title = f"Vision transformer\nDINOv2 ViT-S/14, block {BLOCK}, head {HEAD}"
    picture = np.asarray(square, np.float32)
    return _row(title, "[CLS]", "causal", model, ((pixels - mean) / std)[None], (BLOCK, HEAD), picture, "a photograph")


def of_toy(run_dir: str) -> Row:
    """The NOP head of a toy, in which half of the tokens must stay as they are."""
    run = sa.load_run(run_dir)
    title = "Toy task\nhalf of the tokens must not change"
    picture = run.images[0].float().numpy()
    return _row(title, "null token", "adaptive", run.model, run.images[:1], (0, 0), picture, "32 random tokens")


def _row(
    title: str,
    sink_name: str,
    rule: str,
    model: torch.nn.Module,
    inputs: torch.Tensor,
    head: tuple[int, int],
    picture: NDArray[np.float32],
    caption: str,
) -> Row:
    (attention_map,) = attention_maps(model, inputs, [head])
    label = sa.Label(int(sa.measure(model, inputs).labels(rule)[0, *head])).name.lower()
    return Row(title, sink_name, label, picture, caption, attention_map.weights, attention_map.value_norms)


def draw(rows: list[Row]) -> Figure:
    """One row of panels per head: the input, the attention map, what each key writes, the label."""
    figure = Figure(figsize=(10.4, 5.6))
    grid = figure.add_gridspec(
        2,
        4,
        width_ratios=(0.8, 1.05, 1.25, 1.15),
        left=0.02,
        right=0.985,
        top=0.8,
        bottom=0.09,
        wspace=0.3,
        hspace=0.55,
    )
    figure.text(0.02, 0.945, "The same stripe, two different algorithms", fontsize=16, weight="bold")
    headings = ("", "1  Where do tokens look?", "2  What does each token write?", "3  So the head is a …")
    for position, row in enumerate(rows):
        picture, attention, bars, words = (figure.add_subplot(grid[position, column]) for column in range(4))
        _input(picture, row)
        _stripe(attention, row)
        _bars(bars, row)
        _words(words, row)
        if position == 0:
            for axis, heading in zip((picture, attention, bars, words), headings, strict=True):
                box = axis.get_position()
                figure.text(box.x0, 0.875, heading, fontsize=11, color="#333333")
    return figure


def _input(axis: Axes, row: Row) -> None:
    image = row.picture
    if image.ndim == 3:
        axis.imshow(image / 255)
        for edge in np.linspace(0, len(image), 9) - 0.5:
            axis.axhline(edge, color="white", linewidth=0.5)
            axis.axvline(edge, color="white", linewidth=0.5)
    else:
        axis.imshow(image, cmap="gray", aspect=image.shape[1] / image.shape[0], interpolation="nearest")
    axis.set_axis_off()
    axis.set_title(row.title, fontsize=9, loc="left")
    axis.text(0, -0.06, row.caption, transform=axis.transAxes, fontsize=9, va="top", color="#333333")


def _stripe(axis: Axes, row: Row) -> None:
    axis.imshow(row.weights, cmap="magma", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axis.set_xticks([row.sink], [row.sink_name], fontsize=9, color=COLORS[row.label], weight="bold")
    axis.set_yticks([])
    axis.set_ylabel("token that looks", fontsize=9)
    axis.set_xlabel("token that is looked at", fontsize=9, labelpad=1)
    share = row.weights[:, row.sink].mean()
    axis.annotate(
        f"{share:.0%} of all attention\ngoes to one token",
        xy=(row.sink + 0.7, len(row.weights) * 0.15),
        xytext=(len(row.weights) * 0.36, len(row.weights) * 0.15),
        color="white",
        fontsize=9,
        va="center",
        arrowprops={"arrowstyle": "->", "color": "white"},
    )


def _bars(axis: Axes, row: Row) -> None:
    color = COLORS[row.label]
    axis.bar(np.arange(len(row.norms)), row.relative, width=0.9, color=GRAY)
    axis.bar([row.sink], [row.relative[row.sink]], width=0.9, color=color)
    axis.axhline(1, color="#555555", linewidth=0.8, linestyle=":")
    axis.set_xlim(-1.5, len(row.norms) - 0.5)
    axis.set_ylim(0, 2.2)
    axis.set_xticks([row.sink], [row.sink_name], fontsize=9, color=color, weight="bold")
    axis.set_yticks([0, 1], ["0", "mean"], fontsize=8)
    axis.set_xlabel("token that is looked at", fontsize=9, labelpad=1)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.annotate(
        f"the sink writes {row.relative[row.sink]:.0%}\nof what others write",
        xy=(row.sink, row.relative[row.sink] + 0.04),
        xytext=(len(row.norms) * 0.16, 1.93),
        color=color,
        fontsize=9,
        va="center",
        arrowprops={"arrowstyle": "->", "color": color},
    )


def _words(axis: Axes, row: Row) -> None:
    name, meaning = WORDS[row.label]
    axis.set_axis_off()
    axis.text(0, 0.95, name, transform=axis.transAxes, fontsize=15, weight="bold", color=COLORS[row.label], va="top")
    axis.text(0, 0.68, meaning, transform=axis.transAxes, fontsize=10, va="top", linespacing=1.4)


def main() -> None:
    """Draw the figure from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="local file with the weights of the ViT-S/14; timm's by default")
    parser.add_argument("--toy", default="runs/toy_nop-nop-s0", help="run of configs/toy/nop.yaml")
    parser.add_argument("--out", default="docs/figures/two_stripes", help="path without suffix")
    args = parser.parse_args()
    rows = [of_vit(args.weights), of_toy(args.toy)]
    save((draw(rows), pl.concat(row.table for row in rows)), Path(args.out))


if __name__ == "__main__":
    main()

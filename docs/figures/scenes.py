"""Draw the first scenes of the validation set with their masks and boxes, for docs/data.md.

python docs/figures/scenes.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch, Rectangle

from sinkablate.data.scenes import GARMENT_NAMES, draw_scene

COUNT = 8
OUT = Path(__file__).with_suffix(".png")
COLORS = ListedColormap(["#222222", *plt.get_cmap("tab10").colors])


def main() -> None:
    """Write the figure next to this script."""
    figure, axes = plt.subplots(2, COUNT, figsize=(9, 2.9), layout="constrained")
    for index in range(COUNT):
        image, mask, boxes, _ = draw_scene("val", index)
        axes[0, index].imshow(image, cmap="gray", vmin=0, vmax=255)
        axes[1, index].imshow(mask, cmap=COLORS, vmin=0, vmax=len(GARMENT_NAMES), interpolation="nearest")
        for left, top, right, bottom in boxes - 0.5:
            box = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="white", linewidth=0.7)
            axes[1, index].add_patch(box)
    for axis in np.ravel(axes):
        axis.set_axis_off()
    handles = [Patch(color=COLORS(1 + label), label=name) for label, name in enumerate(GARMENT_NAMES)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=7, handlelength=1)
    figure.savefig(OUT, dpi=130)


if __name__ == "__main__":
    main()

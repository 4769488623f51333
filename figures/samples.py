"""Sample grids: a row a model, a column a seed, the same seeds in every row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from xhat.figures.style import LABELS, WIDTHS, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(images: Mapping[str, np.ndarray], prompts: list[str], columns: int = 8) -> Figure:
    """``images[model]``: uint8 (prompt, seed, row, column, 3). A block of rows a prompt, a row a model."""
    models = list(images)
    figure = new_figure("text", WIDTHS["text"] / (columns + 1.2) * len(prompts) * len(models) + 0.18 * len(prompts))
    blocks = figure.subfigures(len(prompts), 1, squeeze=False)[:, 0]
    for p, (block, prompt) in enumerate(zip(blocks, prompts, strict=True)):
        axes = block.subplots(len(models), 1, squeeze=False)[:, 0]
        for axis, model in zip(axes, models, strict=True):
            axis.imshow(np.concatenate(list(images[model][p][:columns]), axis=1))
            axis.set(xticks=[], yticks=[])
            axis.set_ylabel(LABELS.get(model, model), rotation=0, ha="right", va="center")
            for spine in axis.spines.values():
                spine.set_visible(False)
        axes[0].set_title(f"“{prompt}”", loc="left")
    return figure

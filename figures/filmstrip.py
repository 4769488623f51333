"""x̂₀ filmstrips: the picture a model has in mind, step by step, for one prompt and seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from xhat.figures.style import LABELS, WIDTHS, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(strips: Mapping[str, tuple[np.ndarray, np.ndarray]], prompt: str, columns: int = 8) -> Figure:
    """``strips[model]``: x̂₀ images in [0, 1] (step, 3, h, w), and the timestep of each step. One row a model."""
    figure = new_figure("text", (WIDTHS["text"] / (columns + 1.2) + 0.16) * len(strips) + 0.25)
    axes = figure.subplots(len(strips), columns, squeeze=False)
    for row, (model, (images, timesteps)) in zip(axes, strips.items(), strict=True):
        chosen = np.unique(np.linspace(0, len(images) - 1, min(columns, len(images))).round().astype(int))
        for axis in row:
            axis.axis("off")
        for axis, step in zip(row, chosen, strict=False):
            axis.imshow(images[step].transpose(1, 2, 0))
            axis.set_title(f"t = {timesteps[step]:.0f}", fontsize=6, pad=2)
        row[0].text(-0.15, 0.5, LABELS.get(model, model), transform=row[0].transAxes, ha="right", va="center")
    figure.suptitle(f"x̂₀ at each step: “{prompt}”", fontsize=8, x=0.01, ha="left")
    return figure

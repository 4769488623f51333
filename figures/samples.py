"""Sample grids: a row a model, a column a seed, the same seeds in every row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xhat.figures.kit.style import label, new_figure, width

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

TITLE = "Samples"
CAPTION = "A row a model, a column a seed: the same seeds in every row."
COLUMNS = 8


def draw(data: xr.Dataset) -> Figure:
    """``images``: uint8 (model, prompt, seed, y, x, rgb). A block of rows a prompt, a row a
    model.
    """
    images = data["images"].transpose("model", "prompt", "seed", "y", "x", "rgb")
    columns = min(COLUMNS, images.sizes["seed"])
    models, prompts = data["model"].values.tolist(), data["prompt"].values.tolist()
    cell = (width("text") - 1.0) / columns
    figure = new_figure("text", ((cell + 0.09) * len(models) + 0.2) * len(prompts))
    blocks = figure.subfigures(len(prompts), 1, squeeze=False)[:, 0]
    for block, prompt in zip(blocks, prompts, strict=True):
        axes = block.subplots(len(models), 1, squeeze=False)[:, 0]
        for axis, model in zip(axes, models, strict=True):
            axis.imshow(
                np.concatenate(
                    list(images.sel(model=model, prompt=prompt).values[:columns]), axis=1
                )
            )
            axis.set(xticks=[], yticks=[])
            axis.set_ylabel(label(model), rotation=0, ha="right", va="center")
            axis.spines[:].set_visible(False)
        axes[0].set_title(f"“{prompt}”", loc="left")
    return figure

"""A slider's grid: a row a model and seed, a column a scale; what is broken is marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xhat.figures.kit.style import label, new_figure, width

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

TITLE = "Sliders"
CAPTION = (
    "One slider at several scales, the same seeds in every row. Framed: where pictures saturate."
)
MARK = "#D55E00"


def draw(data: xr.Dataset) -> Figure:
    """``data``: ``images`` (model, scale, seed, row, col, rgb) uint8, ``saturated`` (model, scale),
    attributes ``slider`` and ``prompt``, as ``xhat.analysis.sampling.slider_grid`` gives it."""
    models, scales, seeds = (data[name].values for name in ("model", "scale", "seed"))
    rows = len(models) * len(seeds)
    side = min(0.8, (width("text") - 0.9) / len(scales))
    figure = new_figure("text", side * rows + 0.12 * len(models) + 0.62)
    axes = figure.subplots(rows, len(scales), squeeze=False)
    for r, row in enumerate(axes):
        model, seed = models[r // len(seeds)], seeds[r % len(seeds)]
        for axis, scale in zip(row, scales, strict=True):
            cell = data.sel(model=model, scale=scale)
            axis.imshow(cell["images"].sel(seed=seed).values)
            axis.set(xticks=[], yticks=[])
            marked = bool(cell["saturated"])
            for spine in axis.spines.values():
                spine.set(visible=marked, color=MARK, linewidth=1.5)
            if r == 0:
                axis.set_title(f"{scale:+g}" if scale else "0", fontsize=7, pad=3)
        if r % len(seeds) == 0:
            row[0].set_ylabel(label(str(model)), rotation=0, ha="right", va="center")
    note = "; orange frame: saturated" if np.any(data["saturated"].values) else ""
    figure.suptitle(
        f"slider “{str(data.attrs['slider'])}” on “{str(data.attrs['prompt'])}”, by scale{note}",
        fontsize=8,
        x=0.01,
        ha="left",
    )
    return figure

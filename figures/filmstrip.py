"""x̂₀ filmstrips: the picture a model has in mind, step by step, in columns of equal noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xhat.figures.kit.style import label, new_figure, width

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

TITLE = "The picture in mind"
CAPTION = (
    "x̂₀ at each step for one prompt and seed. Pictures in one column were made at one "
    "noise level σ."
)
COLUMNS = 9


def draw(data: xr.Dataset) -> Figure:
    """``frames``: uint8 (frame, prompt, seed, y, x, rgb), with ``model`` and ``sigma`` of each
    frame.

    The model with the most steps gives the columns; of each other model all steps that fall on one
    are shown."""
    one = data.isel(prompt=0, seed=0)
    names = one["model"].values
    models = list(dict.fromkeys(names.tolist()))
    members = {model: np.flatnonzero(names == model) for model in models}
    levels = {model: one["sigma"].values[at] for model, at in members.items()}
    columns = chosen_levels(list(levels.values()), COLUMNS)
    figure = new_figure("text", (width("text") - 1.0) / len(columns) * len(models) + 0.45)
    axes = figure.subplots(len(models), len(columns), squeeze=False)
    for row, model in zip(axes, models, strict=True):
        for axis, sigma in zip(row, columns, strict=True):
            axis.axis("off")
            hit = np.flatnonzero(np.isclose(levels[model], sigma, rtol=1e-2))
            if len(hit):
                axis.imshow(one["frames"].values[members[model][hit[0]]])
        row[0].text(-0.12, 0.5, label(model), transform=row[0].transAxes, ha="right", va="center")
    for axis, sigma in zip(axes[0], columns, strict=True):
        axis.set_title(f"σ = {sigma:.2g}", fontsize=7, pad=2)
    figure.suptitle(f"“{data['prompt'].values[0]}”", fontsize=8, x=0.01, ha="left")
    return figure


def chosen_levels(levels: list[np.ndarray], columns: int) -> np.ndarray:
    """Noise levels, falling, of the longest schedule: those that others share, filled up evenly to
    ``columns``.

    >>> chosen_levels([np.array([8.0, 4, 2, 1]), np.array([8.0, 2])], 3)
    array([8., 2., 1.])
    """
    longest = max(levels, key=len)
    visits = [sum(np.isclose(other, s, rtol=1e-2).any() for other in levels) for s in longest]
    shared = {i for i, models in enumerate(visits) if models > 1}
    spread = np.linspace(0, len(longest) - 1, min(columns, len(longest))).round().astype(int)[::-1]
    for index in spread.tolist():
        if len(shared) < columns:
            shared.add(index)
    return longest[sorted(shared)]

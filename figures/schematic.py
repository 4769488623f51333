"""The hybrid on its σ axis: which model makes which step, and where latents are handed over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xhat.figures.kit.style import colour, label, marker, new_figure, noise_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "The hybrid on its noise axis"
CAPTION = (
    "Each mark is a step at a noise level σ, coloured by the model that makes it; noise falls "
    "from left to right. The hybrid hands its latents over at exactly equal σ."
)


def draw(data: xr.Dataset) -> Figure:
    """``data`` of :func:`xhat.analysis.sampling.plan_steps.pair_steps`: a lane a plan, hand-overs
    marked.
    """
    plans = list(dict.fromkeys(data["plan"].values.tolist()))
    figure = new_figure("column", 0.42 * len(plans) + 0.75)
    axis = figure.subplots()
    for lane, name in enumerate(plans):
        steps = data.isel(step=np.flatnonzero(data["plan"].values == name))
        sigma, models = steps["sigma"].values, steps["model"].values
        axis.plot(sigma, np.full(len(sigma), lane), color="#bbbbbb", lw=1, zorder=1)
        for model in dict.fromkeys(models.tolist()):
            mine = sigma[models == model]
            mark: dict[str, Any] = {"marker": marker(model), "color": colour(model), "s": 20}
            axis.scatter(mine, np.full(len(mine), lane), **mark, zorder=3, clip_on=False)
        for i in np.flatnonzero(models[1:] != models[:-1]) + 1:
            axis.axvline(sigma[i], color="#999999", lw=0.8, ls=":", zorder=0)
            text = f"hand-over, σ = {sigma[i]:.2g}"
            axis.annotate(
                text, (sigma[i], lane), (3, -9), textcoords="offset points", fontsize=7, va="top"
            )
    axis.set(
        yticks=range(len(plans)),
        yticklabels=[label(p) for p in plans],
        ylim=(len(plans) - 0.25, -0.5),
    )
    noise_axis(axis)
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    return figure

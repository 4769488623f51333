"""Curves over the noise level: diversity of x̂₀ across seeds, and commitment, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from xhat.figures.style import COLOURS, LABELS, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


def draw(curves: Mapping[str, xr.Dataset], variables: Mapping[str, str]) -> Figure:
    """``curves[model]`` holds ``<name>_mean``, ``_low`` and ``_high`` along ``step`` with coordinate ``sigma``.

    ``variables``: name → axis label, one panel each. The noise level falls from left to right, as sampling runs.
    """
    figure = new_figure("column" if len(variables) == 1 else "text", 2.3)
    axes = figure.subplots(1, len(variables), squeeze=False)[0]
    for axis, (name, label) in zip(axes, variables.items(), strict=True):
        for model, data in curves.items():
            sigma, colour = data["sigma"].values, COLOURS[model]
            axis.plot(sigma, data[f"{name}_mean"], "o-", ms=2.5, lw=1.2, color=colour, label=LABELS[model])
            axis.fill_between(sigma, data[f"{name}_low"], data[f"{name}_high"], color=colour, alpha=0.2, lw=0)
        axis.set(xscale="log", xlabel="noise level σ", ylabel=label)
        axis.invert_xaxis()
    axes[0].legend()
    return figure

"""Curves over the noise level, one a model, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from xhat.analysis.intervals import BOUNDS, check_bounded
from xhat.figures.kit.style import colour, label, marker, new_figure, noise_axis

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_curves(data: xr.Dataset, variables: Mapping[str, str]) -> Figure:
    """``data`` of :func:`xhat.analysis.traces.curves.join_curves`.

    ``variables``: name → axis label, one panel each.

    The noise level falls from left to right, as sampling runs; a bar is the interval.
    """
    figure = new_figure("column" if len(variables) == 1 else "text", 2.4)
    axes = figure.subplots(1, len(variables), squeeze=False)[0]
    for axis, (name, text) in zip(axes, variables.items(), strict=True):
        draw_panel(axis, data, name, text)
    columns = len(axes) * 2  # beside the curves there is seldom room
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=columns)
    return figure


def draw_panel(axis: Axes, data: xr.Dataset, name: str, text: str, *, bars: bool = True) -> None:
    """One variable of ``data`` on one axis, a curve a model; ``bars`` stand side by side."""
    check_bounded(data, f"{name}_mean")
    models = list(dict.fromkeys(data["model"].values.tolist()))
    for i, model in enumerate(models):
        curve = data.isel(point=np.flatnonzero(data["model"].values == model))
        shade, name_of, shape = colour(model), label(model), marker(model)
        mean, low, high = (curve[f"{name}_mean"].sel(bound=part) for part in BOUNDS)
        axis.plot(curve["sigma"], mean, ms=3, lw=1.2, color=shade, label=name_of, marker=shape)
        if not bars:
            continue
        beside = curve["sigma"] * (1 + 0.025 * (i - (len(models) - 1) / 2))
        axis.vlines(beside, low, high, color=shade, lw=0.7, alpha=0.7)
    axis.set_ylabel(text)
    noise_axis(axis)

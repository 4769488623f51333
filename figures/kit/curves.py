"""Curves over the noise level, one a model, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from xhat.figures.kit.style import colour, label, marker, new_figure, noise_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = ("_mean", "_low", "_high")


def together(curves: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Curves of models whose steps differ, in one dataset: dimension ``point`` with ``model``,
    ``step``, ``sigma``.

    Of every dataset only ``<name>_mean``, ``_low`` and ``_high`` along ``step`` are kept, with
    their attributes."""
    parts = []
    for model, curve in curves.items():
        kept = [
            name
            for name, v in curve.data_vars.items()
            if v.dims == ("step",) and str(name).endswith(SUFFIXES)
        ]
        steps = np.arange(curve.sizes["step"])
        coords = {"model": ("point", [model] * len(steps)), "step": ("point", steps)}
        coords |= {
            name: ("point", curve[name].values)
            for name in ("sigma", "timestep")
            if name in curve.coords
        }
        parts.append(
            xr.Dataset(
                {name: ("point", curve[name].values, curve[name].attrs) for name in kept}, coords
            )
        )
    joined = xr.concat(parts, "point", combine_attrs="override")
    return joined.assign_attrs(next(iter(curves.values())).attrs)


def draw_curves(data: xr.Dataset, variables: Mapping[str, str]) -> Figure:
    """``data`` of :func:`together`; ``variables``: name → axis label, one panel each.

    The noise level falls from left to right, as sampling runs; a band is the interval.
    """
    figure = new_figure("column" if len(variables) == 1 else "text", 2.4)
    axes = figure.subplots(1, len(variables), squeeze=False)[0]
    for axis, (name, text) in zip(axes, variables.items(), strict=True):
        draw_panel(axis, data, name, text)
    columns = len(axes) * 2  # beside the curves there is seldom room
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=columns)
    return figure


def draw_panel(axis: Axes, data: xr.Dataset, name: str, text: str) -> None:
    """One variable of ``data`` on one axis, a curve a model."""
    for model in dict.fromkeys(data["model"].values.tolist()):
        curve = data.isel(point=np.flatnonzero(data["model"].values == model))
        shade, name_of, shape = colour(model), label(model), marker(model)
        axis.plot(
            curve["sigma"],
            curve[f"{name}_mean"],
            ms=3,
            lw=1.2,
            color=shade,
            label=name_of,
            marker=shape,
        )
        axis.fill_between(
            curve["sigma"],
            curve[f"{name}_low"],
            curve[f"{name}_high"],
            color=colour(model),
            alpha=0.18,
            lw=0,
        )
    axis.set_ylabel(text)
    noise_axis(axis)

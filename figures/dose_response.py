"""Dose–response: how far a control moves its target in each model as its scale is turned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xhat.analysis.intervals import check_bounded
from xhat.figures.kit.bands import draw_band
from xhat.figures.kit.style import colour, label, marker, new_figure, width

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

TITLE = "Dose and response of controls"
CAPTION = (
    "Change of each control's score from scale 0, by scale, in the model it was trained on and in "
    "the others, on the same prompts and seeds; 95 % paired bootstrap over prompts and seeds. A "
    "cross marks a scale that saturates the pictures."
)
NEEDS = {"effect": ("control", "model", "scale", "bound"), "saturated": ("scale",)}


def draw(data: xr.Dataset) -> Figure:
    """``effect`` (control, model, scale, bound), ``saturated`` without ``bound``. A panel a
    control.
    """
    check_bounded(data, "effect")
    names = data["control"].values
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure("text" if columns > 2 else "column", 0.35 + 1.35 * rows)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axis, name in zip(axes.flat, names, strict=False):
        _panel(axis, data.sel(control=name))
        origin = str(data["trained_on"].sel(control=name).values)
        axis.set_title(
            str(name) if origin in str(name) else f"{str(name)} ({label(origin)})",
            pad=3,
            fontsize=7,
        )
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    for axis in axes[-1]:
        axis.set_xlabel("scale")
    for axis in axes[:, 0]:
        axis.set_ylabel("change of score")
    for column in range(columns):  # where the last row is not full, the one above is labelled
        if (rows - 1) * columns + column >= len(names):
            axes[rows - 2, column].tick_params(labelbottom=True)
            axes[rows - 2, column].set_xlabel("scale")
    _legend(figure, data)
    return figure


def _panel(axis: Any, data: xr.Dataset) -> None:
    axis.axhline(0, lw=0.5, color="0.7", zorder=0)
    for model in data["model"].values:
        curve = data.sel(model=model)
        there = np.isfinite(curve["effect"].sel(bound="estimate").values)
        if not there.any():
            continue
        curve = curve.isel(scale=np.flatnonzero(there))
        draw_band(axis, curve["scale"], curve["effect"], str(model))
        worn = curve.isel(scale=np.flatnonzero(curve["saturated"] == 1))
        at = worn["scale"], worn["effect"].sel(bound="estimate")
        axis.plot(*at, "x", ms=5, mew=0.9, color="0.1", zorder=3)


def _legend(figure: Any, data: xr.Dataset) -> None:
    from matplotlib.lines import Line2D

    models = [str(m) for m in data["model"].values]
    handles = [
        Line2D([], [], color=colour(m), marker=marker(m), ms=3, lw=1, label=label(m))
        for m in models
    ]
    handles.append(Line2D([], [], color="0.1", marker="x", ms=5, lw=0, label="saturated"))
    columns = len(handles) if figure.get_figwidth() > 0.8 * width("text") else 3
    figure.legend(handles=handles, loc="outside upper center", ncols=columns)

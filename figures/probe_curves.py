"""When an attribute of the final picture can be read: probe accuracy by noise level, base against
student.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xhat.analysis.intervals import check_bounded
from xhat.figures.kit.bands import draw_band
from xhat.figures.kit.style import colour, label, marker, new_figure, noise_axis

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "When an attribute is decided"
CAPTION = (
    "Balanced accuracy at which a linear probe reads an attribute of the final picture, on "
    "prompts and seeds it was not fitted to. Line and band: at one layer, with a jackknife over "
    "prompts. Dashed: from x̂₀. Dotted: from the network's input x_t. Dash-dotted: from the layer "
    "of an untrained network. Grey: chance."
)
COLUMNS = 4


def draw(data: xr.Dataset) -> Figure:
    """``data``: of :func:`xhat.analysis.traces.decision_levels.decision_levels`. A panel an
    attribute, a colour a model.

    Line with band: the layer. Dashed: x̂₀. Dotted: x_t, which the network is given. Dash-dotted,
    where it was probed: the layer of an untrained network. Thin grey: chance. Noise falls from left
    to right."""
    check_bounded(data, "task")
    names = [
        n for n in data["attribute"].values if np.isfinite(data["task"].sel(attribute=n)).any()
    ]
    if not names:
        raise ValueError(
            "no attribute could be probed: every model always draws the same, or there is one group"
        )
    from matplotlib.ticker import LogLocator

    rows = -(-len(names) // COLUMNS)
    columns = min(COLUMNS, len(names))
    figure = new_figure("text" if columns > 1 else "column", 1.55 * rows + 0.55)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True, sharex=True)
    for axis, name in zip(axes.flat, names, strict=False):
        for model in data["model"].values:
            _curves(axis, data.sel(attribute=name, model=model), str(model))
        axis.axhline(float(data["chance"].sel(attribute=name).max()), color="0.6", lw=0.6)
        axis.set_title(str(name))
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    noise_axis(axes[0, 0])
    axes[0, 0].xaxis.set_major_locator(LogLocator(subs=(1,)))  # panels are narrow
    axes[0, 0].set(ylim=(0, 1.04), xlabel="")
    figure.supxlabel("noise level σ", fontsize=8)
    figure.supylabel("balanced accuracy", fontsize=8)
    _legend(figure, data)
    return figure


def _curves(axis: Axes, data: xr.Dataset, model: str) -> None:
    sigma, tint = data["sigma"].values, colour(model)
    draw_band(axis, sigma, data["task"], model, lw=1.2)
    for key, style in (("x0", "--"), ("x_t", ":"), ("untrained", "-.")):
        if key in data:
            axis.plot(sigma, data[key], style, lw=0.8, color=tint)


def _legend(figure: Figure, data: xr.Dataset) -> None:
    from matplotlib.lines import Line2D

    models, layer = [str(m) for m in data["model"].values], str(data.attrs.get("layer", ""))
    handles = [
        Line2D([], [], color=colour(m), marker=marker(m), ms=3, lw=2, label=label(m))
        for m in models
    ]
    kinds = [("-", str(f"layer {layer}")), ("--", "x̂₀"), (":", "x_t")] + [("-.", "untrained")] * (
        "untrained" in data
    )
    handles += [Line2D([], [], color="0.3", ls=style, lw=1, label=text) for style, text in kinds]
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=len(handles),
        handlelength=1.8,
        columnspacing=1.0,
    )

"""Diversity that comes with the base's activations of step one, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xhat.analysis.intervals import BOUNDS, check_bounded
from xhat.analysis.measures.registry import headlines, measure_label
from xhat.figures.kit.style import colour, label, marker, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "The base's activations of step one in the student, layer by layer"
CAPTION = (
    "At its first step the student is given one layer's output of the base, of the same sample "
    "(filled) or averaged "
    "over the seeds of its prompt (hollow). Lines and bands: the plain student and the hybrid. "
    "Intervals are "
    "bootstraps over prompts."
)


def draw(data: xr.Dataset) -> Figure:
    """``data``: of :func:`xhat.analysis.experiments.patch.measure_patching`."""
    panels = {name: measure_label(name) for name in headlines(data.data_vars)}
    check_bounded(data, "vendi_q2")
    figure = new_figure("text", 1.25 * len(panels) + 0.9)
    axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    for axis, (name, text) in zip(axes, panels.items(), strict=True):
        _references(axis, data, name)
        _layers(axis, data, name)
        axis.set_ylabel(text)
    places = np.arange(data.sizes["layer"])
    axes[-1].set_xticks(
        places,
        [str(v) for v in data["layer"].values],
        rotation=60,
        ha="right",
        rotation_mode="anchor",
    )
    handles, texts = axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncols=len(handles))
    return figure


def _references(axis: Axes, data: xr.Dataset, name: str) -> None:
    for reference in data["reference"].values:
        own = data.sel(reference=reference)
        mean, low, high = (float(own[f"{name}_ref"].sel(bound=part)) for part in BOUNDS)
        axis.axhline(mean, color=colour(str(reference)), lw=1.2, label=label(str(reference)))
        axis.axhspan(low, high, color=colour(str(reference)), alpha=0.12, lw=0)


def _layers(axis: Axes, data: xr.Dataset, name: str) -> None:
    places = np.arange(data.sizes["layer"])
    shown = {
        "own": ("base's activation", "base", -0.12),
        "mean": ("its mean over seeds", "white", 0.12),
    }
    for variant, (text, fill, shift) in shown.items():
        own = data.sel(variant=variant)
        mean, low, high = (own[name].sel(bound=part).values for part in BOUNDS)
        error = np.stack([mean - low, high - mean]).clip(min=0)
        face = colour(fill) if fill == "base" else fill
        axis.errorbar(
            places + shift,
            mean,
            error,
            fmt=marker("base"),
            ms=3.5,
            lw=0.8,
            color=colour("base"),
            markerfacecolor=face,
            label=text,
        )

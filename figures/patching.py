"""Diversity that comes with the base's activations of step one, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xhat.analysis.intervals import BOUNDS
from xhat.analysis.measures.registry import headlines, measure_label
from xhat.figures.kit.forest import varying
from xhat.figures.kit.style import colour, label, marker, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "The base's activations of step one in the student, layer by layer"
CAPTION = (
    "At its first step the student is given one layer's output of the base: that of the same "
    "sample (filled), or averaged over the seeds of its prompt (hollow). Each less the plain "
    "student, on the same prompts and seeds, with its 95 % interval; the band is what the hybrid "
    "gains. Measures that no patch changes are left out."
)
NEEDS = {
    "vendi_q2_gain": ("variant", "layer", "bound"),
    "vendi_q2_ref_gain": ("reference", "bound"),
}
VARIANTS = {
    "own": ("base's activation", colour("base"), -0.14),
    "mean": ("its mean over seeds", "white", 0.14),
}


def draw(data: xr.Dataset) -> Figure:
    """``data``: of :func:`xhat.analysis.experiments.patch.measure_patching`."""
    names = varying(data, [f"{name}_gain" for name in headlines(data.data_vars)])
    figure = new_figure("text", 1.3 * len(names) + 0.9)
    axes = figure.subplots(len(names), 1, squeeze=False, sharex=True)[:, 0]
    for axis, name in zip(axes, names, strict=True):
        measure = name.removesuffix("_gain")
        axis.axhline(0, color=colour("student"), lw=0.8, label="plain student", zorder=0)
        _hybrid(axis, data, measure)
        _layers(axis, data, name)
        axis.set_ylabel(f"{measure_label(measure)},\nless the student's")
    layers = [str(layer) for layer in data["layer"].values]
    turned = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"}
    axes[-1].set_xticks(range(len(layers)), layers, **turned)
    axes[-1].set_xlabel("layer, in the order of the way through the network")
    handles, texts = axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncols=len(handles))
    return figure


def _hybrid(axis: Axes, data: xr.Dataset, measure: str) -> None:
    gain = data[f"{measure}_ref_gain"].sel(reference="hybrid")
    mean, low, high = (float(gain.sel(bound=part)) for part in BOUNDS)
    axis.axhspan(low, high, color=colour("hybrid"), alpha=0.12, lw=0)
    axis.axhline(mean, color=colour("hybrid"), lw=1.2, label=label("hybrid"), zorder=0)


def _layers(axis: Axes, data: xr.Dataset, name: str) -> None:
    places = np.arange(data.sizes["layer"])
    for variant, (text, fill, shift) in VARIANTS.items():
        mean, low, high = (data[name].sel(variant=variant, bound=part).values for part in BOUNDS)
        axis.errorbar(
            places + shift,
            mean,
            np.stack([mean - low, high - mean]).clip(min=0),
            fmt=marker("base"),
            ms=3.5,
            lw=0.8,
            color=colour("base"),
            markerfacecolor=fill,
            label=text,
        )

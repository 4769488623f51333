"""Diversity of x̂₀ across seeds at every noise level: where a model's seeds fall together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xhat.analysis.measures.registry import HEADLINES, MEASURES
from xhat.figures.kit.curves import draw_panel
from xhat.figures.kit.style import label, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

TITLE = "Diversity of x̂₀ across seeds, by noise level"
CAPTION = (
    "Above: mean over prompts. Below: each model less the base at the same noise level, paired by "
    "prompt and seed, with its 95 % interval: where a bar is clear of zero, the difference is "
    "shown. Noise falls from left to right. Vendi counts pictures that differ; entropy is that of "
    "the attributes which the prompt leaves open, 1 where all are equally frequent."
)
NEEDS = {"model": ("point",), "sigma": ("point",)}
PANELS = {n: MEASURES[n].label for n in HEADLINES if MEASURES[n].says == "diversity"}


def draw(data: xr.Dataset) -> Figure:
    """``data``: curves of :func:`xhat.analysis.traces.curves.join_curves`, of one or both measures.

    With ``<name>_less_mean``, of :func:`~xhat.analysis.traces.curves.less_reference`, a row of
    differences stands below; ``attrs["reference"]`` names whom from.
    """
    names = [name for name in PANELS if f"{name}_mean" in data]
    if not names:
        raise ValueError(f"no curve of diversity: expected {' or '.join(PANELS)}, each with _mean")
    paired = all(f"{name}_less_mean" in data for name in names)
    rows = 1 + paired
    figure = new_figure("text" if len(names) > 1 else "column", 0.5 + 1.9 * rows)
    axes = figure.subplots(rows, len(names), squeeze=False, sharex=True)
    for axis, name in zip(axes[0], names, strict=True):
        draw_panel(axis, data, name, PANELS[name], bars=not paired)
    if paired:
        reference = data.attrs.get("reference", "base")
        others = data.isel(point=np.flatnonzero(data["model"].values != reference))
        for above, axis, name in zip(axes[0], axes[1], names, strict=True):
            above.set_xlabel("")
            axis.axhline(0, color="0.4", lw=0.7, zorder=0)
            draw_panel(axis, others, f"{name}_less", f"less that of the {label(reference)}")
    handles, texts = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncols=min(len(texts), 4))
    return figure

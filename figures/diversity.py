"""Diversity of x̂₀ across seeds at every noise level: where a model's seeds fall together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xhat.analysis.measures.registry import HEADLINES, MEASURES
from xhat.figures.kit.curves import draw_curves

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

TITLE = "Diversity of x̂₀ across seeds, by noise level"
CAPTION = (
    "Mean over prompts, with a 95 % bootstrap interval over prompts. Noise falls from left to "
    "right. Vendi counts "
    "pictures that differ; entropy is that of the attributes which the prompt leaves open, 1 "
    "where all are equally "
    "frequent."
)
PANELS = {n: MEASURES[n].label for n in HEADLINES if MEASURES[n].says == "diversity"}


def draw(data: xr.Dataset) -> Figure:
    """``data``: curves of :func:`xhat.analysis.traces.curves.join_curves`, of one or both "
    "measures."""
    return draw_curves(
        data, {name: text for name, text in PANELS.items() if f"{name}_mean" in data}
    )

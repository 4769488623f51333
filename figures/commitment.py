"""Commitment: how soon a run's x̂₀ is what it will be in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xhat.figures.kit.curves import draw_curves

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

TITLE = "Commitment"
CAPTION = (
    "How near x̂₀ is, at each step, to the run's own last one (cosine of latents), and the share "
    "of runs that stay within the tolerance of it from that step on. Mean over prompts, 95 % "
    "bootstrap interval over prompts."
)
PANELS = {"cosine": "cosine of x̂₀ to the last", "committed": "share of runs committed"}


def draw(data: xr.Dataset) -> Figure:
    """``data``: of :func:`xhat.analysis.traces.curves.join_curves`, of one or both measures."""
    return draw_curves(
        data, {name: text for name, text in PANELS.items() if f"{name}_mean" in data}
    )

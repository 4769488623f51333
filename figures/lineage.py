"""Lineage: what each stage from a base to its student changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xhat.analysis.intervals import check_bounded
from xhat.analysis.measures.registry import headlines, measure_label
from xhat.figures.kit.style import colour, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "What each stage loses"
CAPTION = (
    "Each stage less the one that it was made of, on the same prompts, seeds and noise, with 95 % "
    "intervals for new prompts and seeds. Left of zero, less."
)
NEEDS = {"after": ("stage",), "new": ("stage",)}


def draw(data: xr.Dataset) -> Figure:
    """``data``: ``lineage`` of :func:`xhat.analysis.experiments.lineage.measure_lineage`."""
    names = [name for name in headlines(data.data_vars) if f"{name}_change" in data][:3]
    check_bounded(data, *(f"{name}_change" for name in names))
    shown = data.isel(stage=np.flatnonzero(data["after"].values != ""))
    figure = new_figure("column" if len(names) == 1 else "text", 0.9 + 0.32 * shown.sizes["stage"])
    axes = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for axis, name in zip(axes, names, strict=True):
        _panel(axis, shown, name)
    axes[0].set_yticks(
        range(shown.sizes["stage"]),
        [
            f"{new}\n({at})"
            for new, at in zip(shown["new"].values, shown["stage"].values, strict=True)
        ],
    )
    axes[0].set_ylim(shown.sizes["stage"] - 0.5, -0.5)
    return figure


def _panel(axis: Axes, data: xr.Dataset, name: str) -> None:
    low, middle, high = (data[f"{name}_change"].sel(bound=b) for b in ("low", "estimate", "high"))
    places = np.arange(data.sizes["stage"])
    axis.errorbar(
        middle, places, xerr=[middle - low, high - middle], fmt="o", ms=4, capsize=2,
        color=colour("student"),
    )  # fmt: skip
    axis.axvline(0, color="0.25", lw=0.6)
    axis.set(xlabel=f"change of {measure_label(name)}")
    axis.tick_params(axis="y", length=0)

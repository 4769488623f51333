"""Sweep: diversity by the number of steps that the base makes, and what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xhat.analysis.intervals import check_bounded
from xhat.analysis.measures.registry import headlines, measure_label
from xhat.figures.kit.style import colour, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

TITLE = "Steps of the base"
CAPTION = (
    "What is drawn when the base makes the student's first steps, 0 being the student itself; "
    "beneath each number of steps, the evaluations of a picture. 95 % intervals for new prompts "
    "and seeds. Compare two of them by their difference, not by whether intervals overlap."
)
NEEDS = {"base_steps": ("base_steps",), "evaluations": ("base_steps",)}


def draw(data: xr.Dataset) -> Figure:
    """``data``: of :func:`xhat.analysis.experiments.sweep.sweep`."""
    names = headlines(data.data_vars)[:2]
    check_bounded(data, *names)
    figure = new_figure("column" if len(names) == 1 else "text", 2.1)
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    steps, costs = data["base_steps"].values, data["evaluations"].values
    for axis, name in zip(axes, names, strict=True):
        low, middle, high = (data[name].sel(bound=b).values for b in ("low", "estimate", "high"))
        reach = [middle - low, high - middle]
        axis.errorbar(
            steps, middle, yerr=reach, marker="D", ms=4, capsize=2, color=colour("hybrid")
        )
        labels = [f"{n}\n{cost:g}" for n, cost in zip(steps, costs, strict=True)]
        axis.set_xticks(steps, labels)
        axis.set(xlabel="steps of the base, evaluations", ylabel=measure_label(name))
    return figure

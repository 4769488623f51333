"""The controls: what each cause alone does to the student's diversity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xhat.analysis.intervals import check_bounded
from xhat.analysis.measures.registry import headlines, measure_label
from xhat.figures.kit.forest import forest
from xhat.figures.kit.style import OTHER, colour, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

TITLE = "Controls"
CAPTION = (
    "Each control less the student, on the same prompts and seeds: mean difference over prompts, "
    "with its interval. "
    "Where an interval crosses zero, no difference is shown."
)


def draw(data: xr.Dataset) -> Figure:
    """``data``: :func:`xhat.analysis.experiments.swaps.control_table`; ``attrs["student"]`` names
    the student.
    """
    check_bounded(data, "vendi_q2")
    data = data.isel(arm=np.flatnonzero(data["arm"].values != "student"))
    varies = data["varies"].values.tolist()
    groups = list(dict.fromkeys(varies))
    place = np.arange(len(varies)) + 0.7 * np.array([groups.index(group) for group in varies])
    panels = {name: measure_label(name) for name in headlines(data.data_vars)}
    figure = new_figure("text", 0.165 * (place[-1] + 1) + 0.85)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    shades = [
        _shade(arm, data.attrs.get("student", "student")) for arm in data["arm"].values.tolist()
    ]
    for axis, (name, text) in zip(axes, panels.items(), strict=True):
        forest(axis, data, f"{name}_less_student", place, shades)
        axis.axvline(0, color="black", lw=0.6, zorder=1)
        axis.set_xlabel(text)
    figure.supxlabel("difference from the student", fontsize=8)
    axes[0].set_yticks(place, data["label"].values.tolist())
    axes[0].set_ylim(place[-1] + 0.8, -0.8)
    for group in groups[1:]:
        first = place[varies.index(group)]
        for axis in axes:
            axis.axhline(first - 0.85, color="#bbbbbb", lw=0.4)
    return figure


def _shade(arm: str, student: str) -> str:
    """The colour of whoever makes the steps that follow the control."""
    if arm.startswith("student_"):
        return colour(student)
    return OTHER if arm.startswith("strength_") else colour(arm)

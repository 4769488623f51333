"""The controls: what each cause alone does to the student's diversity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xhat.analysis.measures.registry import headlines, measure_label
from xhat.figures.kit.forest import forest, varying
from xhat.figures.kit.style import OTHER, colour, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

TITLE = "Controls"
CAPTION = (
    "Each control less the student, on the same prompts and seeds: mean difference over prompts, "
    "with its interval. "
    "Where an interval crosses zero, no difference is shown. Small print: what the group varies. "
    "Strength: of the distillation, 0 the base's weights and 1 the student's."
)
NEEDS = {
    "varies": ("arm",),
    "label": ("arm",),
    "vendi_q2_less_student": ("arm", "bound"),
}


def draw(data: xr.Dataset) -> Figure:
    """``data``: :func:`xhat.analysis.experiments.swaps.control_table`; ``attrs["student"]`` names
    the student.
    """
    data = data.isel(arm=np.flatnonzero(data["arm"].values != "student"))
    varies = data["varies"].values.tolist()
    groups = list(dict.fromkeys(varies))
    place = np.arange(len(varies)) + 1.1 * np.array([groups.index(group) for group in varies])
    shown = varying(data, [f"{name}_less_student" for name in headlines(data.data_vars)])
    panels = {name: measure_label(name.removesuffix("_less_student")) for name in shown}
    figure = new_figure("text", 0.15 * (place[-1] + 2) + 0.85)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    shades = [
        _shade(arm, data.attrs.get("student", "student")) for arm in data["arm"].values.tolist()
    ]
    for axis, (name, text) in zip(axes, panels.items(), strict=True):
        forest(axis, data, name, place, shades)
        axis.axvline(0, color="black", lw=0.6, zorder=1)
        axis.set_xlabel(text)
    figure.supxlabel("difference from the student", fontsize=8)
    axes[0].set_yticks(place, data["label"].values.tolist())
    axes[0].set_ylim(place[-1] + 0.8, -1.5)
    for group in groups:
        first = place[varies.index(group)]
        at = {"transform": axes[0].get_yaxis_transform(), "ha": "right", "va": "center"}
        axes[0].text(-0.02, first - 0.95, group, **at, fontsize=6.5, color="0.4", style="italic")
        for axis in axes:
            axis.axhline(first - 1.5, color="#bbbbbb", lw=0.4)
    return figure


def _shade(arm: str, student: str) -> str:
    """The colour of whoever makes the steps that follow the control."""
    if arm.startswith("student_"):
        return colour(student)
    return OTHER if arm.startswith("strength_") else colour(arm)

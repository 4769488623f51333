"""Which step decides: what the base adds at each step of the student's schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xhat.analysis.intervals import check_bounded
from xhat.analysis.measures.registry import headlines, measure_label
from xhat.figures.kit.style import colour, label, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Credit of the steps"
CAPTION = (
    "What the base adds to the student at each step, averaged over all patterns of who makes the "
    "other steps (Shapley values), with 95 % intervals for new prompts and seeds. The bar on the "
    "right is their sum, the base at all steps less the student. A measure that no step changes is "
    "left out."
)
ROUNDING = 1e-9
NEEDS = {"step": ("step",), "vendi_q2": ("step", "bound"), "vendi_q2_total": ("bound",)}


def draw(data: xr.Dataset) -> Figure:
    """``data``: :func:`xhat.analysis.experiments.credit.credit`; ``attrs["student"]`` names the
    student.
    """
    there = [name for name in headlines(data.data_vars) if f"{name}_total" in data]
    names = [name for name in there if float(abs(data[name]).max()) > ROUNDING][:3] or there[:1]
    figure = new_figure("column" if len(names) == 1 else "text", 2.1)
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for axis, name in zip(axes, names, strict=True):
        _panel(axis, data, name)
    axes[0].set_title(
        f"base in the place of {label(data.attrs.get('student', 'student'))}", loc="left"
    )
    return figure


def _panel(axis: Axes, data: xr.Dataset, name: str) -> None:
    check_bounded(data, name, f"{name}_total")
    steps = data["step"].values
    values = [data[name].isel(step=i) for i in range(len(steps))] + [data[f"{name}_total"]]
    places = [*range(len(steps)), len(steps) + 0.6]
    shades = [colour("base")] * len(steps) + ["0.65"]
    middle = np.array([float(v.sel(bound="estimate")) for v in values])
    reach = [
        [abs(float(v.sel(bound=b)) - m) for v, m in zip(values, middle, strict=True)]
        for b in ("low", "high")
    ]
    axis.bar(places, middle, 0.7, color=shades, yerr=reach, error_kw={"lw": 1.0, "ecolor": "0.25"})
    axis.axhline(0, color="0.25", lw=0.6)
    axis.set_xticks(places, [*(str(int(step)) for step in steps), "sum"])
    axis.set(xlabel="step made by the base", ylabel=measure_label(name))
    axis.tick_params(axis="x", length=0)

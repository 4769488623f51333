"""Energy: how much of the variance across seeds lies along the directions of controls, by noise
level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xhat.analysis.intervals import BOUNDS, check_bounded
from xhat.figures.kit.style import colour, label, marker, new_figure, noise_axis, plain_log

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

TITLE = "Variance across seeds along the directions of controls"
CAPTION = (
    "Free sampling, no control: variance of x̂₀ across seeds along the direction in which each "
    "control of the base moves x̂₀. Above: its share of all variance, mean over controls; grey: "
    "along directions of random LoRAs, least to most. Below: that variance in the student over "
    "that in the base, a thin line a control with a 95 % bootstrap interval over prompts, thick "
    "the mean. Below 1: the direction is there but less used."
)


def draw(data: xr.Dataset) -> Figure:
    """``base``, ``student``, ``random``, ``absolute`` (model, control, point, step, bound)."""
    check_bounded(data, "base", "student", "random", "absolute")
    data = data.isel(control=np.flatnonzero(data["trained_on"].values == "base"), point=-1)
    students = [str(m) for m in data["model"].values]
    figure = new_figure("text" if len(students) > 1 else "column", 3.4)
    axes = figure.subplots(2, len(students), squeeze=False, sharex="col", sharey="row")
    for (top, bottom), student in zip(axes.T, students, strict=True):
        one = data.sel(model=student)
        sigma = one["sigma"].values
        _shares(top, one, sigma, student)
        _ratios(bottom, one, sigma, student)
        top.set_title(label(student))
        for axis in (top, bottom):
            noise_axis(axis)
        top.set_xlabel("")
    for axis, names in zip(axes[:, 0], (("base", "student", "random"), ("absolute",)), strict=True):
        plain_log(axis.yaxis, np.concatenate([data[name].values.ravel() for name in names]))
    axes[0, 0].set_ylabel("share of variance")
    axes[1, 0].set_ylabel("variance,\nstudent / base")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


def _mean(data: xr.Dataset, name: str, bound: str = "estimate") -> np.ndarray:
    return data[name].sel(bound=bound).mean("control").values


def _shares(axis: Any, data: xr.Dataset, sigma: np.ndarray, student: str) -> None:
    axis.fill_between(
        sigma, _mean(data, "random", "low"), _mean(data, "random", "high"), color="0.8", lw=0
    )
    axis.plot(sigma, _mean(data, "random"), color="0.5", lw=1, label="random directions")
    for name, model in (("base", "base"), ("student", student)):
        axis.plot(
            sigma,
            _mean(data, name),
            marker=marker(model),
            ms=3,
            lw=1.2,
            color=colour(model),
            label="base" if name == "base" else "student",
        )
    axis.set_yscale("log")


def _ratios(axis: Any, data: xr.Dataset, sigma: np.ndarray, student: str) -> None:
    tint = colour(student)
    axis.axhline(1, lw=0.6, color="0.5", zorder=0)
    count = data.sizes["control"]
    for i in range(count):
        one = data.isel(control=i)
        shift = 1 + 0.04 * (i - (count - 1) / 2)  # bars of several controls stand side by side
        value, low, high = (one["absolute"].sel(bound=b).values for b in BOUNDS)
        spread = np.abs(np.stack([value - low, high - value]))
        axis.errorbar(sigma * shift, value, spread, lw=0.5, elinewidth=0.5, color=tint, alpha=0.45)
    absolute = data["absolute"].sel(bound="estimate")
    middle = np.exp(np.log(absolute.transpose("control", "step").values).mean(0))
    axis.plot(sigma, middle, marker=marker(student), ms=3.5, lw=1.8, color=tint)
    axis.set_yscale("log")

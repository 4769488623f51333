"""Diversity against fidelity, evaluations and seconds: the methods that matter by name, the rest
in grey, and the front of each plane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xhat.analysis.intervals import BOUND, BOUNDS, check_bounded
from xhat.analysis.measures.registry import measure_label
from xhat.figures.kit.style import colour, marker, new_figure, plain_log

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "What more diversity costs"
CAPTION = (
    "Every method on the same prompts and seeds. Named: base, student, hybrid and policy, and the "
    "best of the others on the front of diversity, fidelity and evaluations; grey: all other "
    "methods, whose numbers are in the table. Bars of the named: 95 % intervals for new prompts "
    "and seeds. The grey line is the front of each plane."
)
NEEDS = {"evaluations": ("arm",), "seconds": ("arm",), "label": ("arm",), "front": ("arm",)}
NAMED = ("base", "base_few", "student", "hybrid", "policy")
MOST = 6
REST = "0.65"


def draw(data: xr.Dataset) -> Figure:
    """``data``: that of :func:`xhat.analysis.experiments.pareto.figure_data`, variables along
    ``arm``.
    """
    measure = data.attrs["measure"]
    check_bounded(data, measure)
    figure = new_figure("text", 2.6)
    panels = [("evaluations", "evaluations a picture"), ("seconds", "seconds a picture")]
    if "fidelity" in data:
        panels.insert(0, ("fidelity", "fidelity"))
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    shown = named(data, measure)
    for axis, (name, text) in zip(axes, panels, strict=True):
        _panel(axis, data, name, measure, shown)
        axis.set_xlabel(text)
    axes[0].set_ylabel(measure_label(measure))
    _legend(figure, data, shown)
    return figure


def named(data: xr.Dataset, measure: str) -> list[int]:
    """Places of the arms that are drawn by name: those of :data:`NAMED`, and the most diverse of
    the others on the front, :data:`MOST` at most.
    """
    arms = data["arm"].values.astype(str).tolist()
    first = [arms.index(name) for name in _known(arms)]
    others = [i for i in np.flatnonzero(data["front"].values.astype(bool)) if i not in first]
    best = sorted(others, key=lambda i: -_across(data, measure)[i])
    return (first + best)[:MOST]


def _known(arms: list[str]) -> list[str]:
    """The arms of :data:`NAMED`; where there is no "hybrid", the first of its forms."""
    hybrids = [arm for arm in arms if arm.startswith("hybrid")]
    swapped = {"hybrid": "hybrid" if "hybrid" in arms or not hybrids else hybrids[0]}
    return [name for n in NAMED if (name := swapped.get(n, n)) in arms]


def _across(data: xr.Dataset, name: str) -> np.ndarray:
    values = data[name]
    return (values.sel(bound="estimate") if BOUND in values.dims else values).values


def _panel(axis: Axes, data: xr.Dataset, name: str, measure: str, shown: list[int]) -> None:
    x, y = _across(data, name), _across(data, measure)
    sign = 1 if name == "fidelity" else -1
    if sign < 0:
        axis.set_xscale("log")
        plain_log(axis.xaxis, x)
    _front_line(axis, x, y, sign)
    rest = np.setdiff1d(np.arange(len(x)), shown)
    axis.plot(x[rest], y[rest], "o", ms=3, color=REST, mew=0, zorder=2)
    for i in shown:
        one, arm = data.isel(arm=i), str(data["arm"].values[i])
        reach: dict[str, Any] = {"yerr": _reach(one, measure)}
        if name == "fidelity":
            reach["xerr"] = _reach(one, name)
        axis.errorbar(
            x[i], y[i], **reach, fmt="none", ecolor=colour(arm), elinewidth=0.7, alpha=0.5, zorder=3
        )
        axis.plot(x[i], y[i], zorder=4, **_mark(arm))
    axis.margins(0.1)


def _reach(one: xr.Dataset, name: str) -> np.ndarray:
    """(2, 1) how far an interval reaches below and above its mean."""
    mean, low, high = (float(one[name].sel(bound=part)) for part in BOUNDS)
    return np.nan_to_num(np.maximum([[mean - low], [high - mean]], 0))


def _mark(arm: str) -> dict[str, Any]:
    ring = arm.startswith("policy")
    face = "none" if ring else colour(arm)
    return {
        "marker": "o" if ring else marker(arm),
        "ms": 8 if ring else 4.5,
        "ls": "none",
        "color": colour(arm),
        "mfc": face,
        "mew": 1,
    }


def _front_line(axis: Axes, x: np.ndarray, y: np.ndarray, sign: int) -> None:
    """Steps through the points that no other beats in both."""
    best = [
        i
        for i in range(len(x))
        if not ((sign * x >= sign * x[i]) & (y >= y[i]) & ((x != x[i]) | (y != y[i]))).any()
    ]
    order = sorted(best, key=lambda i: (sign * x[i], -y[i]))
    steps = "steps-post" if sign < 0 else "steps-pre"
    axis.plot(x[order], y[order], color="0.8", lw=1.2, drawstyle=steps, zorder=0)


def _legend(figure: Figure, data: xr.Dataset, shown: list[int]) -> None:
    from matplotlib.lines import Line2D

    arms, texts = (data[name].values.astype(str) for name in ("arm", "label"))
    handles = [Line2D([], [], label=texts[i], **_mark(str(arms[i]))) for i in shown]
    rest = data.sizes["arm"] - len(shown)
    if rest:
        style: dict[str, Any] = {"marker": "o", "ms": 3, "ls": "none", "color": REST}
        handles.append(Line2D([], [], label=f"{rest} other methods", **style))
    figure.legend(handles=handles, loc="outside upper center", ncols=4)

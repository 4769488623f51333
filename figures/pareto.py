"""Diversity against fidelity, evaluations and seconds: every method, its intervals, and the front
of each plane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xhat.analysis.intervals import BOUND, BOUNDS, check_bounded
from xhat.analysis.measures.registry import measure_label
from xhat.figures.kit.style import colour, marker, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "What more diversity costs"
CAPTION = (
    "Every method on the same prompts and seeds: means with 95 % bootstrap intervals over "
    "prompts. The grey line is "
    "the front of each plane. A ring with a dot marks the policy's plan, a bare ring its adaptive "
    "form; filled "
    "markers lie on the front of diversity, fidelity and evaluations together."
)
SIZE = 6.5  # points, of the numbers
COLUMNS = 4
# Where a number may stand: points away from its marker, the nearest first.
PLACES: list[tuple[float, float]] = [
    (r * np.cos(a), r * np.sin(a))
    for r in (7, 12, 17, 23, 30)
    for a in np.linspace(0.6, 0.6 + 2 * np.pi, 12, False)
]


def draw(data: xr.Dataset) -> Figure:
    """``data``: that of :func:`xhat.analysis.experiments.pareto.figure_data`, variables along
    ``arm``.
    """
    count, measure = data.sizes["arm"], data.attrs["measure"]
    check_bounded(data, measure)
    rows = -(-count // COLUMNS)
    figure = new_figure("text", 2.35 + 0.135 * rows)
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(2.35, 0.135 * rows))[:, 0]
    panels = [("evaluations", "evaluations a picture"), ("seconds", "seconds a picture")]
    if "fidelity" in data:
        panels.insert(0, ("fidelity", "fidelity"))
    axes = top.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (name, text) in zip(axes, panels, strict=True):
        _panel(axis, data, name, measure)
        axis.set_xlabel(text)
    axes[0].set_ylabel(measure_label(measure))
    _key(bottom, data, rows)
    # settles where the axes are, so that numbers can keep clear of each other
    figure.draw_without_rendering()
    for axis, (name, _) in zip(axes, panels, strict=True):
        _numbers(axis, _across(data, name), _across(data, measure))
    return figure


def _across(data: xr.Dataset, name: str) -> np.ndarray:
    values = data[name]
    return (values.sel(bound="estimate") if BOUND in values.dims else values).values


def _panel(axis: Axes, data: xr.Dataset, name: str, measure: str) -> None:
    x, y = _across(data, name), _across(data, measure)
    sign = 1 if name == "fidelity" else -1
    if sign < 0:
        axis.set_xscale("log")
    _front_line(axis, x, y, sign)
    for i, arm in enumerate(data["arm"].values.astype(str)):
        _point(axis, data.isel(arm=i), str(arm), name, measure, (x[i], y[i]))
    axis.margins(0.1)
    _plain_ticks(axis, x, sign)


def _plain_ticks(axis: Axes, x: np.ndarray, sign: int) -> None:
    """Plain numbers on a logarithmic axis: 1, 2, 3 and 5 of each decade that is seen."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    if sign < 0:
        decades = range(int(np.floor(np.log10(x.min()))) - 1, int(np.ceil(np.log10(x.max()))) + 1)
        axis.xaxis.set_major_locator(
            FixedLocator([m * 10.0**d for d in decades for m in (1, 2, 3, 5)])
        )
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_locator(NullLocator())


def _point(
    axis: Axes, one: xr.Dataset, arm: str, name: str, measure: str, at: tuple[float, float]
) -> None:
    """A marker with its intervals; a ring of its own for the policy."""
    own = colour(arm)
    axis.errorbar(
        *at,
        yerr=_reach(one, measure),
        xerr=_reach(one, name) if name == "fidelity" else None,
        fmt="none",
        ecolor=own,
        elinewidth=0.5,
        alpha=0.35,
        zorder=1,
    )
    _mark(axis, arm, at, bool(one["front"]))


def _reach(one: xr.Dataset, name: str) -> np.ndarray:
    """(2, 1) how far an interval reaches below and above its mean."""
    mean, low, high = (float(one[name].sel(bound=part)) for part in BOUNDS)
    return np.nan_to_num(np.maximum([[mean - low], [high - mean]], 0))


def _mark(axis: Axes, arm: str, at: tuple[float, float], front: bool) -> None:
    own: dict[str, Any] = {
        "color": colour(arm),
        "mfc": colour(arm) if front else "white",
        "mew": 0.9,
        "ls": "none",
    }
    if arm.startswith("policy"):
        axis.plot(*at, "o", ms=8.5, color="black", mfc="none", mew=0.9, zorder=4)
        axis.plot(*at, "o", ms=1.5 if arm == "policy" else 0, color="black", zorder=4)
    else:
        axis.plot(*at, marker(arm), ms=4.2, zorder=3, **own)


def _front_line(axis: Axes, x: np.ndarray, y: np.ndarray, sign: int) -> None:
    """Steps through the points that no other beats in both."""
    best = [
        i
        for i in range(len(x))
        if not ((sign * x >= sign * x[i]) & (y >= y[i]) & ((x != x[i]) | (y != y[i]))).any()
    ]
    order = sorted(best, key=lambda i: (sign * x[i], -y[i]))
    axis.plot(
        x[order],
        y[order],
        color="0.75",
        lw=1.2,
        drawstyle="steps-post" if sign < 0 else "steps-pre",
        zorder=0,
    )


def _numbers(axis: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """A number at every point, each at the nearest free place, with a hair line where that is not
    beside it.
    """
    scale = 72.0 / axis.figure.dpi
    points = axis.transData.transform(np.column_stack([x, y])) * scale
    frame = np.asarray(axis.get_window_extent().extents) * scale
    taken: list[tuple[float, ...]] = [(float(px), float(py), 2.6, 2.6) for px, py in points]
    for i in np.argsort(-y):
        half = (SIZE * (0.34 if i < 9 else 0.62), SIZE * 0.42)
        place = min(
            PLACES, key=lambda offset: _crowding(points[i] + offset, half, taken, frame, offset)
        )
        taken.append((*(points[i] + place), *half))
        far = np.hypot(*place) > 10
        line = (
            {"arrowstyle": "-", "lw": 0.35, "color": "0.5", "shrinkA": 0, "shrinkB": 2}
            if far
            else None
        )
        axis.annotate(
            str(i + 1),
            (x[i], y[i]),
            place,
            textcoords="offset points",
            fontsize=SIZE,
            ha="center",
            va="center",
            arrowprops=line,
            zorder=5,
        )


def _crowding(
    at: np.ndarray,
    half: tuple[float, float],
    taken: list[tuple[float, ...]],
    frame: np.ndarray,
    offset: Any,
) -> float:
    """How much a number of half size ``half`` at ``at`` would cover, with a little for its
    distance.
    """
    boxes = np.array(taken)
    wide = np.maximum(0, half[0] + boxes[:, 2] - np.abs(at[0] - boxes[:, 0]))
    high = np.maximum(0, half[1] + boxes[:, 3] - np.abs(at[1] - boxes[:, 1]))
    covered = float((wide * high).sum())
    outside = max(frame[0] - at[0], at[0] - frame[2], frame[1] - at[1], at[1] - frame[3], 0)
    return covered + 50 * outside + 0.02 * float(np.hypot(*offset))


def _key(area: Any, data: xr.Dataset, rows: int) -> None:
    """The numbers in words, in columns, with each method's marker."""
    axis = area.subplots()
    axis.set(xlim=(0, COLUMNS), ylim=(rows - 0.4, -0.6))
    axis.axis("off")
    for i, (arm, text) in enumerate(zip(data["arm"].values, data["label"].values, strict=True)):
        column, row = divmod(i, rows)
        _mark(axis, str(arm), (column + 0.13, row), bool(data["front"].values[i]))
        axis.text(column + 0.07, row, str(i + 1), ha="right", va="center", fontsize=7)
        axis.text(column + 0.19, row, str(text), ha="left", va="center", fontsize=7)

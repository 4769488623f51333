"""Alignment map: does a control change base and student alike, layer by layer and noise level by
noise level?
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xhat.analysis.intervals import check_bounded
from xhat.figures.kit.heat import draw_heat
from xhat.figures.kit.style import label, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

TITLE = "Alignment of what controls do"
CAPTION = (
    "Angle (arc cosine of the mean cosine) between what a control changes in the base and in the "
    "student on the same input, over controls of the base, by layer and noise level; beside it "
    "the nulls: a random LoRA to itself (what shared weights alone give) and unlike pairs (other "
    "controls and random LoRAs). A dot marks a mean cosine above that of every random LoRA to "
    "itself. Grey: no control reaches that layer. A map that is the same all over is given as one "
    "number instead."
)
NEEDS = {
    "cosine": ("model", "control", "point", "step", "bound"),
    "other": ("model", "control", "point", "step"),
    "random": ("model", "control", "point", "step"),
    "same_random": ("model", "point", "step", "bound"),
    "sigma": ("model", "step"),
}
FLAT = 12
"""Degrees: a panel whose angles, the outer tenths aside, are within so many is one number."""
PANELS = {
    "cosine": "the same control",
    "same_random": "the same random LoRA",
    "unlike": "unlike pairs",
}


def draw(data: xr.Dataset) -> Figure:
    """``cosine`` (model, control, point, step, bound), ``other`` and ``random`` without ``bound``,
    ``same_random`` (model, point, step, bound); ``sigma`` (model, step). One or two students are
    rows, more of them columns."""
    check_bounded(data, "cosine", "same_random")
    students = [str(m) for m in data["model"].values]
    points = ["x̂₀" if p == "x0" else str(p) for p in data["point"].values]
    maps = {student: _maps(data.sel(model=student)) for student in students}
    flat = _flat(maps)
    panels = {name: text for name, text in PANELS.items() if name not in flat}
    upright = len(students) > 2
    shape = (len(panels), len(students)) if upright else (len(students), len(panels))
    figure = new_figure("text", (0.105 * len(points) + 0.2) * shape[0] + 0.75)
    axes = figure.subplots(*shape, squeeze=False, sharey=True)
    image: Any = None
    for row, student in zip(axes.T if upright else axes, students, strict=True):
        one = data.sel(model=student)
        levels = [f"{s:.2g}" for s in one["sigma"].values]
        for axis, name in zip(row, panels, strict=True):
            dots = _above(one, maps[student]) if name == "cosine" else None
            scale = {"vmin": 0, "vmax": 90, "cmap": "YlGnBu_r"}
            angles = _angle(maps[student][name])
            image = draw_heat(axis, angles, points, levels, dots=dots, **scale)
    names = [f"base and {label(s)}" for s in students], list(panels.values())
    _labels(axes, *(names if upright else names[::-1]))
    bar = figure.colorbar(
        image, ax=axes, shrink=min(1.0, 0.6 + 0.4 / shape[0]), aspect=30, pad=0.02
    )
    bar.set_ticks(range(0, 91, 15))
    bar.set_label("angle between changes (degrees)")
    if flat:
        numbers = "; ".join(
            f"{PANELS[name]}: {angle:.0f}° throughout" for name, angle in flat.items()
        )
        figure.suptitle(numbers, fontsize=8)
    return figure


def _flat(maps: dict[str, dict[str, np.ndarray]]) -> dict[str, float]:
    """Panels beside the first that are the same all over, with their median angle."""
    found = {}
    for name in list(PANELS)[1:]:
        angles = np.concatenate([_angle(of[name]).ravel() for of in maps.values()])
        low, middle, high = np.nanpercentile(angles, (10, 50, 90))
        if high - low < FLAT:
            found[name] = float(middle)
    return found


def _angle(values: np.ndarray) -> np.ndarray:
    """Degrees of cosines: small differences between cosines near 1 show."""
    return np.degrees(np.arccos(np.clip(values, -1, 1)))


def _labels(axes: Any, above: list[str], beside: list[str]) -> None:
    for axis, title in zip(axes[0], above, strict=True):
        axis.set_title(title)
    for axis, name in zip(axes[:, 0], beside, strict=True):
        axis.set_ylabel(name)
    for axis in axes[-1]:
        axis.set_xlabel("noise level σ")


def _maps(data: xr.Dataset) -> dict[str, np.ndarray]:
    """(point, step) of each panel."""
    ours = data.isel(control=np.flatnonzero(data["trained_on"].values == "base"))
    unlike = np.stack(
        [ours[n].transpose("control", "point", "step").values for n in ("other", "random")]
    )
    return {
        "cosine": _mean(
            ours["cosine"].sel(bound="estimate").transpose("control", "point", "step").values
        ),
        "same_random": data["same_random"].sel(bound="estimate").transpose("point", "step").values,
        "unlike": _mean(unlike.reshape(-1, *unlike.shape[2:])),
    }


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the first axis, of what is there; NaN of nothing."""
    there = np.isfinite(values)
    count = there.sum(0)
    return np.divide(
        np.where(there, values, 0).sum(0), count, out=np.full(count.shape, np.nan), where=count > 0
    )


def _above(data: xr.Dataset, maps: dict[str, np.ndarray]) -> np.ndarray:
    """Where the mean cosine is above that of every random LoRA to itself."""
    most = data["same_random"].sel(bound="high").transpose("point", "step").values
    return np.asarray(maps["cosine"] > most)

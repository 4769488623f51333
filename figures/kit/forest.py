"""Forest plots: a line an arm, its mean as a point, its interval as a bar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xhat.analysis.intervals import BOUNDS, check_bounded

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


def varying(data: xr.Dataset, names: Sequence[str]) -> list[str]:
    """Those of the intervals ``names`` that are not one and the same value throughout: a panel of
    the others would invent an axis around a constant.
    """
    check_bounded(data, *names)
    return [n for n in names if float(data[n].max() - data[n].min()) > 1e-9]


def forest(
    axis: Axes, data: xr.Dataset, name: str, place: np.ndarray, shades: Sequence[str]
) -> None:
    """The intervals ``name`` (arm, bound) at heights ``place``, each in its shade."""
    check_bounded(data, name)
    mean, low, high = (data[name].sel(bound=part).values for part in BOUNDS)
    axis.hlines(place, low, high, color=shades, lw=1.2)
    axis.scatter(mean, place, color=shades, s=11, zorder=3)
    axis.tick_params(axis="y", length=0)
    axis.locator_params(axis="x", nbins=4)
    axis.spines["left"].set_visible(False)
    axis.set_axisbelow(True)
    axis.grid(axis="x", lw=0.3, color="#dddddd")

"""Forest plots: a line an arm, its mean as a point, its interval as a bar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xhat.analysis.intervals import BOUND, check_bounded
from xhat.figures.kit.bands import SPAN

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
    import pandas as pd
    import seaborn as sns

    values = data[name].transpose("arm", BOUND).values
    rows = np.arange(len(place)).repeat(values.shape[1])
    tints = np.asarray(shades)[rows]
    frame = pd.DataFrame({"x": values.ravel(), "y": place[rows], "shade": tints})
    style = {"linestyle": "none", "ms": 3.3, "mew": 0, "err_kws": {"lw": 1.2}}
    sns.pointplot(
        frame,
        x="x",
        y="y",
        hue="shade",
        palette={shade: shade for shade in shades},
        orient="y",
        native_scale=True,
        legend=False,
        ax=axis,
        **SPAN,
        **style,
    )
    axis.set(xlabel="", ylabel="")
    axis.tick_params(axis="y", length=0)
    axis.locator_params(axis="x", nbins=4)
    axis.spines["left"].set_visible(False)
    axis.set_axisbelow(True)
    axis.grid(axis="x", lw=0.3, color="#dddddd")

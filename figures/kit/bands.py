"""Lines with the band of their interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xhat.analysis.intervals import BOUND
from xhat.figures.kit.style import colour, marker

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

SPAN: dict[str, Any] = {"estimator": "median", "errorbar": ("pi", 100)}
"""How seaborn reads the three bounds: their median is the estimate, their span the interval."""


def draw_band(axis: Axes, x: Any, interval: xr.DataArray, model: str, **line: Any) -> None:
    """``interval`` (place, bound) over ``x`` (place), in the colour of ``model``.

    Places without a value are left out. ``line``: matplotlib's, over the defaults.
    """
    import pandas as pd
    import seaborn as sns

    values = interval.transpose(..., BOUND).values
    frame = pd.DataFrame({"x": np.repeat(x, values.shape[1]), "y": values.ravel()})
    style = {"marker": marker(model), "ms": 2.5, "lw": 1.0, "mew": 0, "err_kws": {"alpha": 0.15}}
    sns.lineplot(frame, x="x", y="y", ax=axis, color=colour(model), **SPAN, **style | line)
    axis.set(xlabel="", ylabel="")

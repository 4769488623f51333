"""Heat maps: cells named by row and column, and dots on some of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh


def draw_heat(
    axis: Axes,
    cells: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    dots: np.ndarray | None = None,
    **scale: Any,
) -> QuadMesh:
    """``cells`` (row, column), those without a value in grey; a dot where ``dots`` is true.

    ``scale``: ``vmin``, ``vmax``, ``cmap``. Returns what a colour bar needs.
    """
    import seaborn as sns

    axis.set_facecolor("0.85")
    names = {"xticklabels": list(columns), "yticklabels": list(rows)}
    sns.heatmap(cells, ax=axis, cbar=False, rasterized=True, **names, **scale)
    axis.tick_params(length=0)
    axis.tick_params(axis="x", rotation=0)
    axis.tick_params(axis="y", rotation=0, labelsize=6)
    if dots is not None:
        y, x = np.nonzero(dots)
        axis.plot(x + 0.5, y + 0.5, "o", ms=2, color="white", mec="black", mew=0.4)
    return axis.collections[0]  # type: ignore[return-value]

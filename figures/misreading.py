"""Misreading: attribute entropy as a reader that errs has it, and corrected for its confusion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xhat.analysis.intervals import check_bounded
from xhat.figures.kit.style import new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

TITLE = "A reader's mistakes"
CAPTION = (
    "Mean attribute entropy of collapsed sets of pictures whose truth is known (dashed), as the "
    "embedded judge reads it when a share of its readings is replaced by other values, and "
    "corrected for its confusion, measured on other pictures. 95 % intervals for new sets and "
    "seeds."
)
NEEDS = {"entropy": ("reading", "error", "bound"), "truth": ()}
STYLES = {"as read": ("0.45", "o", -1), "corrected": ("C0", "D", 1)}


def draw(data: xr.Dataset) -> Figure:
    """``data``: ``entropy`` (reading, error, bound) and ``truth``, of
    ``benchmarks/misreading.py``.
    """
    check_bounded(data, "entropy")
    figure = new_figure("column", 2.1)
    axis = figure.subplots()
    errors = data["error"].values
    for reading, (shade, marker, side) in STYLES.items():
        one = data["entropy"].sel(reading=reading)
        low, middle, high = (one.sel(bound=b).values for b in ("low", "estimate", "high"))
        place = errors + side * 0.004
        bars = [middle - low, high - middle]
        axis.errorbar(
            place, middle, bars, marker=marker, ms=4, capsize=2, color=shade, label=reading
        )
    axis.axhline(float(data["truth"]), ls="--", color="0.2", lw=0.8, label="truth")
    axis.set(xlabel="share of readings replaced", ylabel="attribute entropy")
    axis.legend()
    return figure

"""Regime: at which hand-over a student commits with its first step, and what that step gives back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xhat.analysis.intervals import check_bounded
from xhat.figures.kit.style import colour, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "When the first step decides"
CAPTION = (
    "One student, the same weights, on grids whose first hand-over lies at different noise levels. "
    "Above: share of its diversity (Vendi q = 2, less 1) that is left when only x_T varies, and "
    "when only the noise drawn after the first step does. Below: what the student loses against "
    "its base, and what the base's first step gives back. Bands: 95 % for new prompts and seeds. "
    "Ticks: where published students hand over, seen at the size of these latents."
)
SHARES = {"left_x_T": ("$x_T$ alone", "base"), "left_later": ("later noise alone", "student")}
CHANGES = {"lost": ("student − base", "student"), "given_back": ("hybrid − student", "hybrid")}


def draw(data: xr.Dataset) -> Figure:
    """``data``: ``regime`` of :func:`xhat.analysis.experiments.regime.measure_regime`."""
    check_bounded(data, *SHARES, *CHANGES)
    data = data.sortby("handover")
    figure = new_figure("column", 3.6)
    shares, changes = figure.subplots(2, 1, sharex=True)
    _curves(shares, data, SHARES)
    _curves(changes, data, CHANGES)
    changes.axhline(0, color="0.5", lw=0.6, zorder=0)
    shares.set(ylabel="diversity left", ylim=(0, None))
    changes.set(ylabel="change of Vendi", xlabel="log-SNR at the first hand-over")
    _mark_published(shares, data)
    return figure


def _curves(axis: Axes, data: xr.Dataset, names: dict[str, tuple[str, str]]) -> None:
    x = data["handover"].values
    for name, (text, tint) in names.items():
        estimate, low, high = (data[name].sel(bound=b).values for b in ("estimate", "low", "high"))
        axis.fill_between(x, low, high, color=colour(tint), alpha=0.18, lw=0)
        axis.plot(x, estimate, "o-", ms=3, lw=1.2, color=colour(tint), label=text)
    axis.legend(loc="best", frameon=False)


def _mark_published(axis: Axes, data: xr.Dataset) -> None:
    """A tick above the axis for each hand-over, named once where several students share it."""
    groups: dict[float, list[str]] = {}
    for name, value in zip(
        data["published"].values, data["published_handover"].values, strict=True
    ):
        groups.setdefault(round(float(value), 1), []).append(str(name))
    top = axis.get_xaxis_transform()
    for row, (value, names) in enumerate(sorted(groups.items())):
        axis.plot([value] * 2, [1.0, 1.04], color="0.2", lw=0.8, transform=top, clip_on=False)
        axis.text(
            value,
            1.06 + 0.09 * (row % 3),
            "\n".join(names) if len(names) > 2 else ", ".join(names),
            transform=top,
            fontsize=6,
            ha="center" if np.isfinite(value) else "left",
            va="bottom",
        )

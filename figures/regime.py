"""Regime: at which hand-over a student commits with its first step, and what that step
gives back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xhat.analysis.intervals import check_bounded
from xhat.figures.kit.bands import draw_band
from xhat.figures.kit.style import new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "When the first step decides"
CAPTION = (
    "One student, the same weights, on grids whose first hand-over lies at different noise levels. "
    "Middle: share of its diversity (Vendi q = 2, less 1) that is left when only x_T varies, and "
    "when only the noise drawn after the first step does. Below: what the student loses against "
    "its base, and what the base's first step gives back. Bands: 95 % for new prompts and seeds. "
    "Top: where published students hand over, seen at the size of these latents."
)
SHARES = {"left_x_T": ("x_T alone", "base"), "left_later": ("later noise alone", "student")}
CHANGES = {"lost": ("student − base", "student"), "given_back": ("hybrid − student", "hybrid")}


def draw(data: xr.Dataset) -> Figure:
    """``data``: ``regime`` of :func:`xhat.analysis.experiments.regime.measure_regime`."""
    check_bounded(data, *SHARES, *CHANGES)
    data = data.sortby("handover")
    figure = new_figure("column", 4.2)
    published, shares, changes = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": [1, 2, 2]}
    )
    _points(published, data)
    _curves(shares, data, SHARES)
    _curves(changes, data, CHANGES)
    changes.axhline(0, color="0.5", lw=0.6, zorder=0)
    shares.set(ylabel="diversity left", ylim=(0, None))
    changes.set(ylabel="change of Vendi", xlabel="log-SNR at the first hand-over")
    return figure


def _points(axis: Axes, data: xr.Dataset) -> None:
    """A line for each published student, the latest hand-over above."""
    data = data.sortby("published_handover")
    x, y = data["published_handover"].values, range(data.sizes["published"])
    axis.hlines(y, xmin=data["handover"].values.min(), xmax=x, color="0.85", lw=0.6)
    axis.plot(x, y, "o", ms=3, color="0.2")
    axis.set_yticks(y, [str(name) for name in data["published"].values], fontsize=6)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)


def _curves(axis: Axes, data: xr.Dataset, names: dict[str, tuple[str, str]]) -> None:
    # told apart in greys too
    for (name, (text, model)), (marker, line) in zip(
        names.items(), (("o", "-"), ("s", "--")), strict=True
    ):
        look = {"marker": marker, "ls": line, "ms": 3, "lw": 1.2, "label": text}
        draw_band(axis, data["handover"], data[name], model, **look)
    axis.legend(loc="best", frameon=False)

"""Retention: how much of a control's effect is left in a model it was not trained on, beside the
paper's numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xhat.analysis.intervals import BOUNDS, check_bounded
from xhat.figures.kit.style import OTHER, colour, label, marker, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

TITLE = "Retention of controls"
CAPTION = (
    "Effect of each control in another model over its effect in the model it was trained on, with "
    "95 % paired bootstrap intervals over prompts and seeds; a missing mark means that the "
    "control has no effect in its own model. Right: what the paper's Table 1 gives for SDXL "
    "(change of the CLIP score; dots are its nine controls, bars the ratio of their means). The "
    "two are different measures on different models: compare patterns, not sizes."
)
LIMIT = (-0.6, 2.2)
"""Retention beyond these is drawn at the edge, with an arrow."""


def draw(data: xr.Dataset) -> Figure:
    """``retention`` (control, model, bound); ``published`` and ``published_each`` of the paper."""
    check_bounded(data, "retention")
    figure = new_figure("text", 0.9 + 0.27 * max(data.sizes["control"], 5))
    left, right = figure.subplots(1, 2, width_ratios=[2.4, 1])
    _ours(left, data)
    _published(right, data)
    for axis in (left, right):
        axis.axvline(1, lw=0.6, color="0.5", zorder=0)
        axis.axvline(0, lw=0.6, color="0.8", zorder=0)
        axis.tick_params(axis="y", length=0)
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside upper center", ncols=data.sizes["model"]
    )
    return figure


def _ours(axis: Any, data: xr.Dataset) -> None:
    models = [str(m) for m in data["model"].values]
    names = [str(c) for c in data["control"].values]
    offsets = np.linspace(-0.28, 0.28, len(models)) if len(models) > 1 else np.zeros(1)
    for model, offset in zip(models, offsets, strict=True):
        row = data.sel(model=model)
        y = np.arange(len(names)) + offset
        value, low, high = (row["retention"].sel(bound=b).values for b in BOUNDS)
        there = np.isfinite(value)
        shown, tint = np.clip(value, *LIMIT), colour(model)
        axis.hlines(
            y[there], np.clip(low, *LIMIT)[there], np.clip(high, *LIMIT)[there], lw=1, color=tint
        )
        axis.plot(shown[there], y[there], marker(model), ms=3.5, color=tint, label=label(model))
        for edge, sign in ((LIMIT[1], ">"), (LIMIT[0], "<")):
            beyond = there & ((high > edge) if sign == ">" else (low < edge))
            if beyond.any():  # an empty line would be laid out at the corner of the page
                axis.plot(
                    np.full(beyond.sum(), edge), y[beyond], sign, ms=3, color=tint, clip_on=False
                )
    axis.set(yticks=range(len(names)), yticklabels=names, xlim=LIMIT, ylim=(len(names) - 0.5, -0.5))
    axis.set_xlabel("retention (effect here / effect where trained)")
    axis.set_title("embedded family")


def _published(axis: Any, data: xr.Dataset) -> None:
    students = [str(s) for s in data["published_student"].values]
    y = np.arange(len(students))
    each = data["published_each"].transpose("published_student", "published_control").values
    spread = np.linspace(-0.18, 0.18, each.shape[1])
    axis.plot(each.T, (y[:, None] + spread).T, ".", ms=3, color=OTHER)
    axis.vlines(data["published"].values, y - 0.3, y + 0.3, lw=1.6, color="0.15")
    axis.set(yticks=y, yticklabels=students, ylim=(len(students) - 0.5, -0.5), xlim=(0.4, 1.8))
    axis.set_xlabel("student / base")
    axis.set_title("the paper, SDXL")

"""How much of a seed is left: in x̂₀ at each noise level, in its answer to x_T, and in the
pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xhat.figures.kit.curves import draw_panel
from xhat.figures.kit.forest import forest
from xhat.figures.kit.style import colour, label, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

TITLE = "What is left of a seed"
CAPTION = (
    "Left: can a seed's final picture be picked out by its x̂₀ (dotted: by chance)? Middle: how far "
    "x̂₀ moves when the starting noise x_T is moved a little, ‖∂x̂₀/∂x_T‖/√d. Right: is the base's "
    "picture of the same seed the nearest? Share of its pictures of other seeds that are nearer: "
    "0 where the seed means the same in both, 0.5 (dotted) where it means nothing. Mean over "
    "prompts, with its interval."
)
NEEDS = {"model": ("point",), "sigma": ("point",), "paired_rank_mean": ("arm", "bound")}


def draw(data: xr.Dataset) -> Figure:
    """``data``: ``identified`` and ``gain`` of :func:`xhat.analysis.traces.curves.join_curves`;
    ``paired_rank_mean`` (arm).
    """
    figure = new_figure("text", 2.6)
    seen, moved, paired = figure.subplots(1, 3)
    draw_panel(seen, data, "identified", "share of seeds recognised")
    seen.axhline(data.attrs["chance"], color="black", lw=0.8, ls=":")
    seen.set_ylim(0, 1.04)
    draw_panel(moved, data, "gain", "change of x̂₀ / change of x_T")
    top = float(data["gain_mean"].sel(bound="estimate").max())
    moved.set_ylim(0, 1.6 * top)  # longer bars are cut: they would flatten all curves
    models = dict(zip(*seen.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(models.values(), models, loc="outside upper left", ncols=len(models))
    arms = data["arm"].values.tolist()
    forest(paired, data, "paired_rank_mean", np.arange(len(arms)), [colour(arm) for arm in arms])
    paired.axvline(0.5, color="black", lw=0.8, ls=":")
    paired.set_yticks(np.arange(len(arms)), [_words(arm) for arm in arms])
    paired.set(xlabel="share of other seeds nearer", xlim=(0, None), ylim=(len(arms) - 0.5, -0.5))
    return figure


def _words(arm: str) -> str:
    model = arm.removesuffix("_own")
    return label(model) + (", own noise" if model != arm else "")

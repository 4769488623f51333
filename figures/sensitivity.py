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
    "Left: share of seeds whose x̂₀ is nearer to their own final picture than to any other seed's "
    "(dotted: chance). Middle: how far x̂₀ moves when x_T moves, ‖∂x̂₀/∂x_T‖/√d. Right: share of "
    "the base's pictures of other seeds that are nearer to an arm's picture than the base's "
    "picture of the same seed (dotted: chance). Mean over prompts, with its interval."
)


def draw(data: xr.Dataset) -> Figure:
    """``data``: ``identified`` and ``gain`` of :func:`xhat.analysis.traces.curves.join_curves`;
    ``paired_rank_mean`` (arm).
    """
    figure = new_figure("text", 2.6)
    seen, moved, paired = figure.subplots(1, 3)
    draw_panel(seen, data, "identified", "seeds told by x̂₀")
    seen.axhline(data.attrs["chance"], color="black", lw=0.8, ls=":")
    seen.set_ylim(0, 1.04)
    draw_panel(moved, data, "gain", "x̂₀ moved per $x_T$ moved")
    moved.set_ylim(bottom=0)
    models = dict(zip(*seen.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(models.values(), models, loc="outside upper left", ncols=len(models))
    arms = data["arm"].values.tolist()
    forest(paired, data, "paired_rank_mean", np.arange(len(arms)), [colour(arm) for arm in arms])
    paired.axvline(0.5, color="black", lw=0.8, ls=":")
    paired.set_yticks(
        np.arange(len(arms)), [label(arm).replace(" own", ", own noise") for arm in arms]
    )
    paired.set(xlabel="rank of the same seed", xlim=(0, None), ylim=(len(arms) - 0.5, -0.5))
    return figure

"""Training: how diversity falls while students are distilled, by method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xhat.figures.kit.style import colour, label, marker, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

TITLE = "Collapse while training"
CAPTION = (
    "Students on the same four timesteps, evaluated while they are trained: diversity across seeds "
    "of open prompts, and how much of what full captions state is drawn. Step 0: the base's "
    "weights on the student's timesteps, unguided (pruned: with layers taken out). Dashed: a "
    "second training, from another seed or with another guidance. Grey: the base at its own steps "
    "and guidance. One small set of prompts and seeds, without intervals: the model cards have "
    "them."
)
PANELS = {"vendi_q2": "Vendi (q = 2)", "obedience": "obedience"}
TICKS = (0, 200, 400, 1000, 3000)
NEEDS = {"step": ("run", "row"), "method": ("run",), **dict.fromkeys(PANELS, ("run", "row"))}


def draw(data: xr.Dataset) -> Figure:
    """``data``: ``training`` of ``benchmarks/training.py``; ``attrs["base_<measure>"]`` are the
    base's values.
    """
    figure = new_figure("text", 2.4)
    axes = figure.subplots(1, len(PANELS), sharex=True)
    for axis, (name, text) in zip(axes, PANELS.items(), strict=True):
        axis.axhline(data.attrs[f"base_{name}"], color="0.6", lw=1.0, zorder=0)
        for run in data["run"].values:
            one = data.sel(run=run).dropna("row", subset=["step"])
            method = str(one["method"].values)
            first = run == method
            axis.plot(
                one["step"],
                one[name],
                color=colour(method),
                marker=marker(method),
                ms=3,
                lw=1.2 if first else 0.8,
                ls="-" if first else "--",
                label=label(method) if first else None,
            )
        axis.set(xlabel="training step", ylabel=text)
        axis.set_xscale("symlog", linthresh=400)
        axis.set_xticks(TICKS, [str(step) for step in TICKS])
        axis.minorticks_off()
    handles, texts = axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncols=len(texts))
    return figure

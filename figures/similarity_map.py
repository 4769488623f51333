"""Similarity of base and students over layer × noise, and beside it what similarity is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xhat.analysis.intervals import BOUND
from xhat.figures.kit.bands import draw_band
from xhat.figures.kit.heat import draw_heat
from xhat.figures.kit.style import label, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Similarity of representations, layer by layer, at equal noise"
CAPTION = (
    "Debiased linear CKA of each layer of the base with the same layer of another network, "
    "samples matched. Maps: the students, a dot where the similarity cannot be told from that of "
    "unrelated prompts (permutation of prompts, corrected over the map). Below: the same numbers "
    "by depth, one panel a noise level, with 95 % jackknife intervals over prompts, beside the "
    "base's own weights at as few steps, an untrained network, and the base under other seeds. "
    "The last layer, x_t, is the network's input."
)
NEEDS = {"cka": ("level", "layer")}
BASELINES = ("base_few", "untrained")
ALPHA = 0.05


def draw(data: xr.Dataset) -> Figure:
    """``cka`` (network, level, layer), as in the ``similarity_map`` of
    :func:`~xhat.analysis.experiments.similarity.measure_similarity`.

    ``network`` may be missing, where there is one alone, and ``bound``, ``p_map`` and
    ``seed_to_seed`` too: what is not there is not drawn.
    """
    if "network" not in data["cka"].dims:
        data = data.expand_dims(network=[str(data.attrs.get("network", "student"))])
    students = [name for name in data["network"].values.tolist() if name not in BASELINES]
    levels = data["level"].values
    low = float(np.floor(10 * _cells(data.sel(network=students)).min()) / 10)
    figure = new_figure("text", 4.6)
    maps, profiles = figure.subfigures(2, 1, height_ratios=(1.15, 1), squeeze=False)[:, 0]
    axes = maps.subplots(1, len(students), squeeze=False, sharey=True)[0]
    for axis, student in zip(axes, students, strict=True):
        image = _map(axis, data.sel(network=student), label(student), low)
    maps.colorbar(image, ax=axes, label="CKA with the base", pad=0.01, aspect=14)
    shown = profiles.subplots(1, len(levels), squeeze=False, sharey=True)[0]
    for axis, level in zip(shown, levels, strict=True):
        _profile(
            axis,
            data.sel(level=level),
            [*students, *(n for n in BASELINES if n in data["network"].values)],
        )
        axis.set_title(f"σ = {level:.2g}")
    shown[0].set_ylabel("CKA with the base")
    handles, labels = shown[0].get_legend_handles_labels()
    profiles.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _cells(data: xr.Dataset) -> xr.DataArray:
    """CKA without its bounds."""
    return data["cka"].sel(bound="estimate") if BOUND in data["cka"].dims else data["cka"]


def _map(axis: Axes, data: xr.Dataset, title: str, low: float) -> Any:
    """On the scale of all maps, from the tenth below their least to 1."""
    data = data.transpose("layer", "level", ...)
    image = draw_heat(
        axis,
        _cells(data).values,
        data["layer"].values.tolist(),
        [f"{s:.2g}" for s in data["level"].values],
        dots=data["p_map"].values > ALPHA if "p_map" in data else None,
        vmin=min(low, 0.9),
        vmax=1,
        cmap="viridis",
    )
    axis.set(title=title, xlabel="noise level σ")
    return image


def _profile(axis: Axes, data: xr.Dataset, networks: list[str]) -> None:
    names = [str(n) for n in data["layer"].values]
    depth = np.arange(len(names))
    for name in networks:
        cka = data["cka"].sel(network=name)
        cka = cka if BOUND in cka.dims else cka.expand_dims(BOUND)
        draw_band(axis, depth, cka, name, ms=2.2, label=label(name), legend=False)
    if "seed_to_seed" in data:
        axis.plot(
            depth, data["seed_to_seed"], ls=":", lw=1, color="#333333", label="base, other seeds"
        )
    axis.set_xticks(depth, names, rotation=90, fontsize=6)
    axis.set_ylim(-0.1, 1.05)

"""Readings of a network on given states, or on those it meets in free sampling, as one Dataset.

One variable a hook point, under its name, and ``x0``, each (prompt, seed, step, …) with one flat
dimension; ``input`` and ``final`` are latents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from xhat.analysis.intervals import BOUND, BOUNDS

SAMPLE = ("prompt", "seed", "step")
X0 = "x0"


def points_of(data: xr.Dataset) -> list[str]:
    """Names of the readings in such a dataset, in the order of the network, x̂₀ last."""
    names = [str(name) for name in data.data_vars if name not in (X0, "input", "final")]
    return [*sorted(names, key=_place), X0]


def _place(name: str) -> tuple[int, ...]:
    """Where a point of a UNet comes: diffusers lists the middle after the end, and attentions
    before the residual blocks that they follow. Other networks are in order."""
    stage, *rest = name.split(".")
    if stage not in ("down", "mid", "up") or len(rest) < 2:
        return (0,)
    block = 0 if stage == "mid" else int(rest[0])
    return ("down", "mid", "up").index(stage), block, int(rest[-1]), int(rest[-2] == "attn")


def mean_and_range(values: Sequence[np.ndarray], dims: Sequence[str]) -> xr.DataArray:
    """Mean, least and most of arrays of one shape along ``bound``: a range of nulls, no interval.

    A cell that is NaN in one of them is NaN."""
    stacked = np.stack(values)
    bounds = np.stack([stacked.mean(0), stacked.min(0), stacked.max(0)], axis=-1)
    attrs = {"method": f"mean, least and most of {len(stacked)}"}
    return xr.DataArray(bounds, {BOUND: list(BOUNDS)}, (*dims, BOUND), attrs=attrs)

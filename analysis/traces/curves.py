"""Curves of several models whose steps differ, in one dataset."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from xhat.analysis.crossed import crossed_columns
from xhat.analysis.intervals import BOUND, BOUNDS, bounded_names
from xhat.analysis.measures.by_seed import measure_names, values_of


def join_curves(curves: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """The curves of each model, one after the other along ``point``.

    Parameters
    ----------
    curves
        Model → dataset; of each the variables (step, bound) are taken, with their attributes.

    Returns
    -------
    xarray.Dataset
        Variables (point, bound); ``model``, ``step`` and, where there are any, ``sigma`` and
        ``timestep`` along ``point``.
    """
    parts = []
    for model, curve in curves.items():
        names = [name for name in bounded_names(curve) if set(curve[name].dims) == {"step", BOUND}]
        steps = np.arange(curve.sizes["step"])
        levels = {
            name: ("point", curve[name].values)
            for name in ("sigma", "timestep")
            if name in curve.coords
        }
        arrays = {
            name: (
                ("point", BOUND),
                curve[name].transpose("step", BOUND).values,
                curve[name].attrs,
            )
            for name in names
        }
        coords = {"model": ("point", [model] * len(steps)), "step": ("point", steps)}
        parts.append(xr.Dataset(arrays, {**coords, **levels, BOUND: list(BOUNDS)}))
    joined = xr.concat(parts, "point", combine_attrs="override")
    return joined.assign_attrs(next(iter(curves.values())).attrs)


def less_reference(curve: xr.Dataset, reference: xr.Dataset) -> xr.Dataset:
    """``curve`` with ``<name>_less_mean`` (step, bound): each measure of each prompt and seed less
    that of ``reference`` at the same noise level, with its interval for new prompts and seeds.

    Between its steps the reference is read on the straight line over log σ, beyond them at the
    nearest. Both are of :func:`~xhat.analysis.traces.diversity.diversity_by_noise`, on the same
    prompts and seeds.
    """
    at, known = (-np.log(np.maximum(c["sigma"].values, 1e-3)) for c in (curve, reference))
    found = curve.copy()
    for name in measure_names(curve):
        ours, theirs = values_of(curve, name), values_of(reference, name)
        there = np.apply_along_axis(lambda y: np.interp(at, known, y), -1, theirs)
        difference = crossed_columns(ours - there)
        found[f"{name}_less_mean"] = difference.array("step")
    return found

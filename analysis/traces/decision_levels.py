"""At which noise level an attribute is decided: probe curves of several models at one layer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from xhat.analysis.intervals import BOUND
from xhat.analysis.traces.layers import X_T
from xhat.analysis.traces.probe_task import PRED_X0


def decision_levels(curves: Mapping[str, xr.Dataset], layer: str) -> xr.Dataset:
    """The curves of several models at one layer, for a figure: (model, attribute, step), shorter
    schedules padded.

    ``layer``'s ``task`` and ``control`` with ``bound``; the task on ``x_t``, on ``x0`` and
    untrained; ``sigma`` (model, step); ``decided_sigma`` (model, attribute): noise level of the
    first step at which x̂₀ gives away at least half of what there is to know, (chance + 1)/2. NaN
    where it never does."""
    parts = []
    for data in curves.values():
        if layer not in data["layer"].values:
            raise ValueError(
                f"no layer {layer!r} was probed; there are "
                f"{', '.join(map(str, data['layer'].values))}"
            )
        names = ["task", "control", *(n for n in ("untrained",) if n in data), "chance"]
        part = data.sel(layer=layer, drop=True)[names]
        part = part.drop_vars([c for c in part.coords if c not in ("attribute", BOUND)])
        part["sigma"] = ("step", data["sigma"].values)
        accuracy = data["task"].sel(bound="estimate", drop=True)
        for key, other in (("x_t", X_T), ("x0", PRED_X0)):
            part[key] = accuracy.sel(layer=other, drop=True).variable
        read = part["x0"] >= (part["chance"] + 1) / 2
        first = data["sigma"].values[read.argmax("step").values]
        part["decided_sigma"] = ("attribute", np.where(read.any("step").values, first, np.nan))
        parts.append(part)
    padded = [p.pad(step=(0, max(q.sizes["step"] for q in parts) - p.sizes["step"])) for p in parts]
    joined = xr.concat(padded, xr.DataArray(list(curves), dims="model", name="model"), join="outer")
    return joined.assign_attrs(layer=layer)

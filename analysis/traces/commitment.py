"""When a run has made up its mind: how soon x̂₀ is what it will be in the end."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.crossed import crossed_mean
from xhat.analysis.stats import LEVEL


def commitment(trace: Any, *, tolerance: float = 0.1, level: float = LEVEL) -> xr.Dataset:
    """How close x̂₀ of every step is to the run's own x̂₀ at its last step.

    Variables (prompt, seed, step): ``cosine`` ⟨x̂₀, x̂₀ᴸ⟩/(‖x̂₀‖·‖x̂₀ᴸ‖) of flattened latents, and
    ``relative_l2`` ‖x̂₀ − x̂₀ᴸ‖/‖x̂₀ᴸ‖. Of each ``<name>_mean`` (step, bound): mean over prompts
    and seeds, for new ones of both (:func:`~xhat.analysis.crossed.crossed_mean`); and
    ``committed_mean`` (step, bound), the share of runs that are committed by a step.
    ``committed_at`` (prompt, seed): position of the first step from which on relative_l2 stays at
    or below ``tolerance``, at the latest the last; ``committed_sigma``: its noise level, which is
    what compares between schedules. Coordinates of the trace along ``step`` stay. Raises ValueError
    without ``pred_x0``, for NaN, for an x̂₀ that is zero everywhere, and for a tolerance that is
    not positive."""
    if not tolerance > 0:
        raise ValueError(
            f"tolerance is a share of the final x̂₀'s length and positive, got {tolerance}"
        )
    if "pred_x0" not in trace:
        raise ValueError(f"this trace has no variable 'pred_x0': it has {sorted(trace.data_vars)}")
    pred_x0 = trace["pred_x0"].transpose("prompt", "seed", "step", ...)
    parts = [_closeness(pred_x0.isel(prompt=p)) for p in range(pred_x0.sizes["prompt"])]
    dims = ("prompt", "seed", "step")
    coords = {name: c for name, c in pred_x0.coords.items() if c.dims and set(c.dims) <= set(dims)}
    names = ("cosine", "relative_l2")
    found = {
        name: np.stack(values) for name, values in zip(names, zip(*parts, strict=True), strict=True)
    }
    result = xr.Dataset({name: (dims, values) for name, values in found.items()}, coords=coords)
    for name, values in found.items():
        result[f"{name}_mean"] = crossed_mean(values, level=level).array("step")
    at = committed_at(found["relative_l2"], tolerance)
    by = (at[..., None] <= np.arange(pred_x0.sizes["step"])).astype(float)
    share = crossed_mean(by, level=level).array("step")
    result["committed_mean"] = share.assign_attrs(tolerance=tolerance, of="relative_l2")
    result["committed_at"] = (dims[:2], at, {"tolerance": tolerance, "of": "relative_l2"})
    if "sigma" in coords:
        result["committed_sigma"] = (dims[:2], coords["sigma"].values[at], {"tolerance": tolerance})
    return result.assign_attrs(reference="x̂₀ at the last step of the same run")


def committed_at(distance: np.ndarray, tolerance: float) -> np.ndarray:
    """Position along the last axis from which on ``distance`` stays at or below ``tolerance``; the
    last at the latest.

    >>> committed_at(np.array([[0.5, 0.05, 0.3, 0.05, 0.0]]), tolerance=0.1)
    array([3])
    """
    far = distance > tolerance
    since = far.shape[-1] - np.argmax(
        far[..., ::-1], axis=-1
    )  # one after the last step that is too far
    return np.where(far.any(-1), np.minimum(since, far.shape[-1] - 1), 0)


def _closeness(pred_x0: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and relative L2 to the last step, each (seed, step), of one prompt's (seed, step,
    …).
    """
    x = np.asarray(pred_x0.values, dtype=np.float64)
    x = x.reshape(*x.shape[:2], -1)
    lengths = np.linalg.norm(x, axis=-1)
    if not np.isfinite(lengths).all() or not lengths.min() > 0:
        prompt = str(pred_x0["prompt"].values)
        raise ValueError(
            f"x̂₀ of prompt {prompt!r} holds NaN or infinite values, or is zero everywhere at a step"
        )
    last = x[:, -1:]
    cosine = (x * last).sum(-1) / (lengths * lengths[:, -1:])
    return np.clip(cosine, -1, 1), np.linalg.norm(x - last, axis=-1) / lengths[:, -1:]

"""Whether a direction that exists is used: how much of the variance across seeds lies along it, in
free sampling.

A control's direction, at a point and noise level, is the mean change that it makes there. If a
student still has the direction (the control moves it) but its own samples hardly vary along it, the
direction exists and is not activated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.crossed import crossed_log_ratio, crossed_mean
from xhat.analysis.measures.by_seed import BY_SEED, LEAST_SEEDS, values_of, variance_by_seed
from xhat.analysis.traces.readings import SAMPLE, mean_and_range, points_of


def direction(effect: xr.Dataset, prompts: Sequence[str] | None = None) -> xr.Dataset:
    """Unit direction of a control at every point, (step, …): the mean of its effect over prompts
    and seeds.

    ``effect``: of :func:`xhat.analysis.sampling.effects.effect`; ``prompts``: those to take, all by
    default. NaN where the control changes nothing."""
    chosen = (
        effect
        if prompts is None
        else effect.sel(prompt=[p for p in effect["prompt"].values if p in prompts])
    )
    if not chosen.sizes["prompt"]:
        raise ValueError(f"the effect was measured on none of the prompts {list(prompts or [])}")
    mean = chosen[points_of(effect)].mean(("prompt", "seed"), dtype="float64")
    found = {}
    for name, value in mean.data_vars.items():
        length = np.linalg.norm(value.values, axis=-1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            found[name] = (value.dims, value.values / length)
    return xr.Dataset(found, coords=mean.coords)


def energy(free: xr.Dataset, along: xr.Dataset, prompts: Sequence[str] | None = None) -> xr.Dataset:
    """Variance across seeds along a direction, of every prompt, point and step, in free sampling.

    Variables (prompt, point, step): ``along`` = var⟨x, u⟩, ``total`` = Σ_d var x_d, ``share`` =
    along/total; variances are unbiased. ``<name>_by_seed`` (prompt, seed, point, step) of along and
    share are values whose means these are. ``free``: of
    :func:`xhat.analysis.sampling.effects.free_runs`; ``along``: of :func:`direction`. A share of
    1/d is what a random direction of d dimensions has if the variance is spread evenly. Raises
    ValueError for one seed, and for other noise levels.

    Projected points estimate both variances without bias; x̂₀ is whole.
    """
    if (n := free.sizes["seed"]) < LEAST_SEEDS:
        raise ValueError(f"variance is across seeds: at least {LEAST_SEEDS} are needed, got {n}")
    if not np.allclose(free["sigma"], along["sigma"], rtol=1e-3):
        raise ValueError(
            f"the direction is of σ {along['sigma'].values}, the samples are of "
            f"{free['sigma'].values}"
        )
    chosen = (
        free
        if prompts is None
        else free.sel(prompt=[p for p in free["prompt"].values if p in prompts])
    )
    points = points_of(along)
    found: dict[str, list[np.ndarray]] = {"along": [], "total": []}
    for point in points:
        x = chosen[point].transpose(*SAMPLE, ...).values.astype(np.float64)
        found["along"].append(variance_by_seed(np.einsum("petd,td->pet", x, along[point].values)))
        found["total"].append(variance_by_seed(x).sum(-1))
    each = {name: np.stack(values, axis=2) for name, values in found.items()}
    stacked = {name: values.mean(1) for name, values in each.items()}
    stacked["share"] = stacked["along"] / stacked["total"]
    parts = (stacked[name][:, None] for name in ("share", "total"))
    each["share"] = _share_by_seed(each["along"], each["total"], *parts)
    coords: dict[str, Any] = {"prompt": chosen["prompt"], "point": points}
    coords |= {name: free[name] for name in ("timestep", "sigma", "alpha_bar")}
    variables: dict[str, Any] = {n: (("prompt", "point", "step"), v) for n, v in stacked.items()}
    for name in ("along", "share"):
        variables[f"{name}{BY_SEED}"] = (("prompt", "seed", "point", "step"), each[name])
    return xr.Dataset(variables, coords=coords)


def _share_by_seed(
    along: np.ndarray, total: np.ndarray, share: np.ndarray, whole: np.ndarray
) -> np.ndarray:
    """The share, and what each seed adds to it, to first order."""
    return share + (along - share * total) / whole


def compare_energy(
    base: xr.Dataset, student: xr.Dataset, random: Mapping[str, xr.Dataset], **options: Any
) -> xr.Dataset:
    """A student's energy along a direction against the base's, for new prompts and new seeds.

    ``base``, ``student``: of :func:`energy`; ``random``: name → energy of the student along random
    LoRAs' directions. Variables (point, step, bound): ``base``, ``student``, mean shares;
    ``ratio``, student's mean share over base's, ``absolute``, the same of the variances themselves,
    both paired; ``random``, the student's mean share along random
    directions, with the least and the most of them. A ratio below 1 with its whole interval: less
    activated than in the base."""
    along, share = (
        [_values(measured, name) for measured in (base, student)] for name in ("along", "share")
    )
    intervals = {
        "base": crossed_mean(share[0], **options),
        "student": crossed_mean(share[1], **options),
        "ratio": crossed_log_ratio(*share, **options),
        "absolute": crossed_log_ratio(*along, **options),
    }
    reached = base["share"].notnull().all("prompt") & student["share"].notnull().all("prompt")
    result = xr.Dataset(coords={k: base[k] for k in ("point", "timestep", "sigma", "alpha_bar")})
    dims = ("point", "step")
    for name, interval in intervals.items():
        result[name] = interval.array(dims).where(reached)
    nulls = [e["share"].mean("prompt").transpose(*dims).values for e in random.values()]
    nothing = np.full([base.sizes[dim] for dim in dims], np.nan)
    result["random"] = mean_and_range(nulls or [nothing], dims)
    return result


def _values(measured: xr.Dataset, name: str) -> np.ndarray:
    """(prompt, seed, point, step), with 1 where the control does not reach: marked NaN at the end.

    Of a single prompt its seeds are the units, and what is said is for that prompt.
    """
    values = values_of(measured, name)
    values = np.where(np.isfinite(values).all((0, 1)), values, 1.0)
    return values if len(values) > 1 else np.swapaxes(values, 0, 1)

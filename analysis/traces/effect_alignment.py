"""Whether controls do the same to two networks: cosine and angles of their effects, beside what
chance gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis import stats
from xhat.analysis.intervals import BOUNDS, bounded
from xhat.analysis.traces.readings import X0, mean_and_range, points_of

COMPONENTS = 3


def alignment_map(
    ours: Mapping[str, xr.Dataset],
    theirs: Mapping[str, xr.Dataset],
    prompts: Mapping[str, Sequence[str]],
    *,
    turns: Mapping[str, str] | None = None,
    components: int = COMPONENTS,
    orders: int = 999,
    seed: int = 0,
) -> xr.Dataset:
    """Whether controls do the same to two networks on the same inputs, at every point and noise
    level.

    ``ours``, ``theirs``: name → :func:`xhat.analysis.sampling.effects.effect` in either network, of
    the same states. ``prompts``: those on which each control is compared; a name without an entry
    is a random LoRA, the null. ``turns``: what each control turns; those that turn the same are no
    null to each other.

    Variables (control, point, step): ``cosine`` of Δ in one network to Δ in the other, input by
    input, mean over seeds and prompts, with ``bound`` (bootstrap over prompts); ``overlap``, mean
    cos² of the principal angles between the ``components`` main directions of all Δ; ``gain``, RMS
    of Δ there over RMS of Δ here. Nulls: ``other`` and ``random``, mean cosine of the control here
    to other controls and to random LoRAs there; ``p``, rank of ``cosine`` among all of these, both
    ways round, as (1 + #≥)/(1 + #). (point, step): ``same_random`` with ``bound`` (mean, least and
    most), the cosine of a *random* LoRA to itself in the other network: what shared weights alone
    give; ``same_random_overlap``; ``p_map``, of the mean cosine when the controls of one network
    are exchanged, corrected over the map. ``chance``: components/dimensions, the overlap of random
    subspaces. A point that a control does not reach is NaN. (control, control_b, step): ``within``,
    the cosine of two controls' changes of x̂₀ in the first network, ``within_there`` in the second.
    Raises ValueError for effects of other states."""
    names, randoms = [n for n in ours if n in prompts], [n for n in ours if n not in prompts]
    _check_states(ours, theirs, names)
    points, first = points_of(ours[names[0]]), ours[names[0]]
    cells = {point: _cells(ours, theirs, point, prompts, components) for point in points}
    cosines = np.stack([cells[p][0] for p in points], axis=2)  # (ours, theirs, point, step, prompt)
    overlaps = np.stack([cells[p][1] for p in points], axis=1)  # (name, point, step)
    gains = np.stack([cells[p][2] for p in points], axis=1)
    order = [*names, *randoms]
    dims = ("control", "point", "step")
    found: dict[str, Any] = {
        "overlap": (dims, overlaps[: len(names)]),
        "gain": (dims, gains[: len(names)]),
    }
    found["cosine"] = _own(cosines, order, prompts, first["prompt"].values, seed)
    means = _row_means(cosines, order, prompts, first["prompt"].values)
    meant = [(turns or {}).get(name, name) for name in order]
    found |= {k: (dims, v) for k, v in _nulls(means, meant, len(names)).items()}
    found |= _shared(means, overlaps, len(names))
    each = [
        meant.index(what) for what in dict.fromkeys(meant[: len(names)])
    ]  # one control of each kind
    found["p_map"] = (dims[1:], _exchanged(means[np.ix_(each, each)], orders, seed))
    for key, effects in (("within", ours), ("within_there", theirs)):
        between = _row_means(
            _cosines(effects, effects, X0, order)[0][:, :, None],
            order,
            prompts,
            first["prompt"].values,
        )
        found[key] = (("control", "control_b", "step"), between[: len(names), : len(names), 0])
    widths = [first[p].shape[-1] for p in points]
    found["chance"] = ("point", components / np.array(widths))
    coords = {"control": names, "control_b": names, "point": points} | {
        k: first[k] for k in ("timestep", "sigma", "alpha_bar")
    }
    attrs = {"randoms": len(randoms), "components": components}
    return xr.Dataset(found, coords=coords, attrs=attrs)


def _check_states(
    ours: Mapping[str, xr.Dataset], theirs: Mapping[str, xr.Dataset], names: Sequence[str]
) -> None:
    if not names:
        raise ValueError(
            "no control to compare: name its prompts; a name without prompts is a random LoRA"
        )
    first = ours[names[0]]
    if list(ours) != list(theirs):
        raise ValueError(f"both networks need the same controls: {list(ours)} and {list(theirs)}")
    for effects in (*ours.values(), *theirs.values()):
        same = all(np.array_equal(effects[c].values, first[c].values) for c in ("prompt", "seed"))
        if not same or not np.allclose(effects["sigma"], first["sigma"], rtol=1e-3):
            raise ValueError(
                "effects compare only on the same states: prompts, seeds and noise levels must be "
                "equal"
            )


def _cells(
    ours: Mapping[str, xr.Dataset],
    theirs: Mapping[str, xr.Dataset],
    point: str,
    prompts: Mapping[str, Sequence[str]],
    components: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of one point: mean over seeds of the cosine (ours, theirs, step, prompt); overlap and gain
    (name, step).
    """
    order = [*(n for n in ours if n in prompts), *(n for n in ours if n not in prompts)]
    cosine, a, b = _cosines(ours, theirs, point, order)
    with np.errstate(invalid="ignore", divide="ignore"):
        gain = np.sqrt((b**2).mean((1, 2, 4)) / (a**2).mean((1, 2, 4)))
    overlap = np.full(gain.shape, np.nan)
    for i, name in enumerate(order):
        rows = _rows(ours[name]["prompt"].values, prompts.get(name))
        for t in range(a.shape[3]):
            ra, rb = (x[i, rows, :, t].reshape(-1, x.shape[-1]) for x in (a, b))
            overlap[i, t] = _overlap(ra, rb, components)
    return cosine, overlap, gain


def _cosines(
    ours: Mapping[str, xr.Dataset],
    theirs: Mapping[str, xr.Dataset],
    point: str,
    order: Sequence[str],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over seeds of the cosine (ours, theirs, step, prompt), and both sets of changes (name,
    prompt, seed, …).
    """
    a, b = (
        np.stack([e[n][point].values for n in order]).astype(np.float64) for e in (ours, theirs)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        ua, ub = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b))
    return np.einsum("ipetd,jpetd->ijtp", ua, ub, optimize=True) / a.shape[2], a, b


def _rows(have: np.ndarray, wanted: Sequence[str] | None) -> np.ndarray:
    rows = (
        np.flatnonzero(np.isin(have, list(wanted))) if wanted is not None else np.arange(len(have))
    )
    if not len(rows):
        raise ValueError(
            f"none of the prompts {list(wanted or [])} is among those of the states, "
            f"{have.tolist()}"
        )
    return rows


def _overlap(a: np.ndarray, b: np.ndarray, components: int) -> float:
    """Mean cos² between the spans of the main directions of two sets of changes (not centred: the
    mean counts).
    """
    if not a.any() or not b.any():
        return np.nan
    one, other = (np.linalg.svd(x, full_matrices=False)[2][:components] for x in (a, b))
    return float((np.linalg.svd(one @ other.T, compute_uv=False) ** 2).mean())


def _own(
    cosines: np.ndarray,
    order: Sequence[str],
    prompts: Mapping[str, Sequence[str]],
    have: np.ndarray,
    seed: int,
) -> xr.DataArray:
    """Cosine of each control to itself in the other network, with its interval over prompts."""
    bounds = np.full((len(BOUNDS), len(prompts), *cosines.shape[2:4]), np.nan)
    for i, name in enumerate(n for n in order if n in prompts):
        values = np.moveaxis(
            cosines[i, i][..., _rows(have, prompts[name])], -1, 0
        )  # (prompt, point, step)
        good = np.isfinite(values).all(0)
        interval = stats.bootstrap_mean(values[:, good], seed=seed)
        bounds[:, i, good] = interval.estimate, interval.low, interval.high
    method = "bootstrap over prompts, expanded percentile"
    dims = ("control", "point", "step")
    return bounded(*bounds, level=stats.LEVEL, method=method, dims=dims)


def _row_means(
    cosines: np.ndarray,
    order: Sequence[str],
    prompts: Mapping[str, Sequence[str]],
    have: np.ndarray,
) -> np.ndarray:
    """(ours, theirs, point, step): mean cosine over the prompts of the one in the first network."""
    rows = [_rows(have, prompts.get(name)) for name in order]
    return np.stack([cosines[i][..., rows[i]].mean(-1) for i in range(len(order))])


def _nulls(means: np.ndarray, meant: Sequence[str], controls: int) -> dict[str, np.ndarray]:
    """Cosines to what should not be alike: other controls, random LoRAs, and the rank of the own
    among them.
    """
    found = {key: np.full((controls, *means.shape[2:]), np.nan) for key in ("other", "random", "p")}
    for i in range(controls):
        unlike = [j for j in range(len(means)) if meant[j] != meant[i]]
        others = [j for j in unlike if j < controls]
        if others:
            found["other"][i] = means[i, others].mean(0)
        if len(means) > controls:
            found["random"][i] = means[i, controls:].mean(0)
        null = np.concatenate([means[i, unlike], means[unlike, i]])
        rank = (1 + (null >= means[i, i]).sum(0)) / (1 + len(null))
        found["p"][i] = np.where(np.isfinite(means[i, i]), rank, np.nan)
    return found


def _shared(means: np.ndarray, overlaps: np.ndarray, controls: int) -> dict[str, Any]:
    """What random LoRAs have in common with themselves in the other network: mean and range."""
    dims = ("point", "step")
    same = [means[i, i] for i in range(controls, len(means))]
    return {
        "same_random": mean_and_range(same or [np.full(means.shape[2:], np.nan)], dims),
        "same_random_overlap": (
            dims,
            overlaps[controls:].mean(0) if same else np.full(means.shape[2:], np.nan),
        ),
    }


def _exchanged(means: np.ndarray, orders: int, seed: int) -> np.ndarray:
    """p of the mean own cosine when the controls of one network change places, corrected over the
    map.
    """
    count = len(means)
    p = np.full(means.shape[2:], np.nan)
    good = np.isfinite(means).all((0, 1))
    if count < 2 or not good.any():
        return p
    rows = np.arange(count)
    null = np.stack(
        [means[rows, o][:, good].mean(0) for o in stats.group_permutations(rows, orders, seed)]
    )
    p[good] = stats.max_statistic(means[rows, rows][:, good].mean(0), null).p_map
    return p

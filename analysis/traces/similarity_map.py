"""Similarity of two traced networks, layer by layer, at equal noise levels or between all, with
what it means.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from einops import rearrange

from xhat.analysis import stats
from xhat.analysis.crossed import crossed_jackknife
from xhat.analysis.intervals import BOUND, BOUNDS
from xhat.analysis.traces.layers import (
    X_T,
    Layers,
    NoSharedLevel,
    SimilarityMeasure,
    Steps,
    TooFewSamples,
    layers_of,
    measure_of,
)

Pairs = list[tuple[int, int]]
UNITS = ("prompt", "seed")
CORRECTED_FROM = 8
"""Fewest prompts and seeds whose bias a jackknife can tell (measured from 8 × 12 on, in
``benchmarks/coverage.py``): from 2 × 6 it made similarities of 1.7."""


def similarity_map(
    trace_a: Any,
    trace_b: Any,
    *,
    measure: str = "cka",
    align: str | None = "sigma",
    by: str | None = "prompt",
    untrained: Any = None,
    ceiling: Any = None,
    branch: str = "cond",
    tolerance: float = 1e-3,
    permutations: int = 199,
    level: float = stats.LEVEL,
    seed: int = 0,
    **options: Any,
) -> xr.Dataset:
    """Every layer of one trace against every layer of another over the same prompts and seeds.

    ``align="sigma"``: dims (pair, layer_a, layer_b), one pair for each two steps that are each
    other's nearest in log σ, no further than ``tolerance`` apart; nothing is interpolated,
    ``step_a``, ``step_b`` and both sigmas name the pairs, and the attribute ``unpaired_b`` the
    steps of trace_b that found none. ``align=None``: dims (layer_a, step_a, layer_b, step_b).
    ``measure``: cka, rsa, mutual_knn, svcca or procrustes with its own ``options``. The last layer
    of both is ``x_t``, the network's input: shared noise alone is similar.

    ``similarity``; ``interval`` (bound): two-way jackknife over prompts and seeds, for new ones of
    both, where CKA of 8 prompts and seeds or more has its bias of few taken off
    (:func:`~xhat.analysis.crossed.crossed_jackknife`), and nothing is above 1; with one prompt, or
    one seed, over the other alone. By units ``by`` (prompt or seed): ``null_mean``,
    ``null_deviation``, ``p``, ``critical`` and ``p_map``: permutations of whole units, the last two
    corrected over the map without x_t (``by=None`` leaves all these out); ``seed_to_seed_a``,
    ``_b``: each layer under one half of the
    seeds against itself under the other, how far the prompt alone goes; ``untrained``: trace_a
    against the trace ``untrained``, a network of b's shape on b's schedule; ``ceiling_a``: each
    layer of trace_a against the same one of the trace ``ceiling``, that model trained or sampled
    under other seeds, samples paired by place. A layer that is the same for every sample, or was
    not read at a step, is NaN there. Traces that kept Grams give the numbers of traces that kept
    activations.

    Raises ValueError for other prompts or seeds and no activations, as :class:`NoSharedLevel` where
    no noise level is equal, as :class:`TooFewSamples` where too few are left."""
    if align not in ("sigma", None):
        raise ValueError(f"align must be 'sigma' or None, got {align!r}")
    if by not in (*UNITS, None):
        raise ValueError(f"by must be 'prompt', 'seed' or None, got {by!r}")
    how = measure_of(measure, **options)
    prompts, seeds = trace_a["prompt"].values, trace_a["seed"].values
    sigmas = np.asarray(trace_a["sigma"].values), np.asarray(trace_b["sigma"].values)
    pairs = _pairs(*sigmas, tolerance if align else None)
    a, b = (
        layers_of(t, how, prompts, seeds, branch, name, {pair[side] for pair in pairs})
        for side, (t, name) in enumerate(((trace_a, "trace_a"), (trace_b, "trace_b")))
    )
    everything = np.arange(len(prompts) * len(seeds))
    prepared = _prepared(how, a, everything), _prepared(how, b, everything)
    found: dict[str, np.ndarray] = {"similarity": _cells(how, *prepared, pairs)}
    attrs: dict[str, Any] = {
        "measure": measure,
        **options,
        "align": str(align),
        "n": len(everything),
        "branch": branch,
    }
    if align:
        attrs |= {
            "tolerance": tolerance,
            "unpaired_b": sorted(set(range(len(sigmas[1]))) - {j for _, j in pairs}),
        }
    if by is not None:
        groups = everything // len(seeds) if by == "prompt" else everything % len(seeds)
        more, said = _resampled(
            how, a, b, prepared, pairs, found["similarity"], groups, by, permutations, level, seed
        )
        counts = len(prompts), len(seeds)
        correct = measure == "cka" and min(counts) >= CORRECTED_FROM
        interval = _interval(how, (a, b), pairs, found["similarity"], counts, level, correct)
        bounds = np.stack([interval.estimate, interval.low, interval.high], axis=-1)
        found["interval"] = np.minimum(bounds, 1) if measure == "cka" else bounds
        found, attrs = found | more, attrs | interval.attrs | said
    if untrained is not None:
        c = layers_of(untrained, how, prompts, seeds, branch, "untrained", {j for _, j in pairs})
        _check_like_b(c, b, untrained, sigmas[1])
        found["untrained"] = _cells(how, prepared[0], _prepared(how, c, everything), pairs)
    result = _dataset(found, a, b, pairs, sigmas, align)
    if by is not None:
        how_made = {"level": level, "method": attrs.pop("interval")}
        result["interval"] = result["interval"].assign_attrs(how_made)
    beside = {
        f"seed_to_seed_{side}": _halves(how, layers, len(prompts), len(seeds))
        for side, layers in (("a", a), ("b", b))
    }
    if ceiling is not None:
        beside["ceiling_a"] = _ceiling(
            how, ceiling, a, prepared[0], trace_a, branch, {i for i, _ in pairs}
        )
    return _with(result, beside, align).assign_attrs(_for_netcdf(attrs))


def _check_like_b(layers: Layers, b: Layers, untrained: Any, sigmas: np.ndarray) -> None:
    if layers.names != b.names or not np.array_equal(untrained["sigma"].values, sigmas):
        raise ValueError(
            "the untrained network must be read at the points of trace_b and on its noise levels"
        )


def _for_netcdf(attrs: dict[str, Any]) -> dict[str, Any]:
    """Attributes that netCDF holds: it has neither bool nor None."""
    there = {name: value for name, value in attrs.items() if value is not None}
    return {name: int(v) if isinstance(v, bool) else v for name, v in there.items()}


def _with(
    result: xr.Dataset, beside: dict[str, np.ndarray | None], align: str | None
) -> xr.Dataset:
    """The map and, beside it, what is (step, layer) of the one trace that a name ends in."""
    for name, cells in beside.items():
        if cells is not None:
            layer, step = f"layer_{name[-1]}", f"step_{name[-1]}"
            array = xr.DataArray(cells.T, dims=(layer, step))
            if align:
                array = array.isel({step: result[step]}).transpose("pair", ...)
            result[name] = array.variable
    return result


def _pairs(a: np.ndarray, b: np.ndarray, tolerance: float | None) -> Pairs:
    """Steps that are compared: each other's nearest in log sigma within ``tolerance``, or all
    without it.
    """
    if tolerance is None:
        return [(i, j) for i in range(len(a)) for j in range(len(b))]
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = np.abs(np.log(a)[:, None] - np.log(b)[None, :])
    gap[a[:, None] == b[None, :]] = 0  # infinite noise too: a flow model starts there
    near = [(i, int(j)) for i, j in enumerate(gap.argmin(1))]
    pairs = [(i, j) for i, j in near if gap[i, j] <= tolerance and gap[:, j].argmin() == i]
    if not pairs:
        raise NoSharedLevel(
            f"no noise level is in both traces: sigma is {np.round(a, 3).tolist()} and "
            f"{np.round(b, 3).tolist()}. Trace one at a number of steps that visits the other's, "
            "widen tolerance, or compare all with align=None"
        )
    return pairs


def _prepared(how: SimilarityMeasure, layers: Layers, index: np.ndarray) -> Steps:
    """Every representation of the samples ``index``, ready to compare."""
    if len(index) < how.least:
        raise TooFewSamples(
            f"{len(index)} samples are left to compare, this measure needs {how.least}: trace more"
        )
    return [
        [
            None if r is None else how.prepared(how.subset(r, index), f"{name}, step {s}")
            for name, r in zip(layers.names, step, strict=True)
        ]
        for s, step in enumerate(layers.steps)
    ]


def _reordered(prepared: Steps, index: np.ndarray) -> Steps:
    return [[None if r is None else r[index] for r in step] for step in prepared]


def _cells(how: SimilarityMeasure, a: Steps, b: Steps, pairs: Pairs) -> np.ndarray:
    """(pair, layer_a, layer_b) similarities, NaN where there is no representation."""
    cells = np.full((len(pairs), len(a[0]), len(b[0])), np.nan)
    for cell, (i, j) in zip(cells, pairs, strict=True):
        rows, columns = ([m for m, r in enumerate(step) if r is not None] for step in (a[i], b[j]))
        if rows and columns:
            left, right = [r for r in a[i] if r is not None], [r for r in b[j] if r is not None]
            cell[np.ix_(rows, columns)] = how.compare(left, right)
    return cells


def _resampled(
    how: SimilarityMeasure,
    a: Layers,
    b: Layers,
    prepared: tuple[Steps, Steps],
    pairs: Pairs,
    observed: np.ndarray,
    groups: np.ndarray,
    unit: str,
    permutations: int,
    level: float,
    seed: int,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Null of a map, by exchanging whole groups of samples."""
    names = np.unique(groups)
    if len(names) < 2:
        raise TooFewSamples(
            f"by={unit!r} needs at least 2 {unit}s to resample, got 1: trace more, or pass by=None"
        )
    known = np.isfinite(observed)
    orders = stats.group_permutations(groups, permutations, seed)
    null = np.stack(
        [_cells(how, prepared[0], _reordered(prepared[1], how.reordered(o)), pairs) for o in orders]
    )
    family = known.copy()
    family[:, [name == X_T for name in a.names], :] = False
    family[:, :, [name == X_T for name in b.names]] = False
    test = stats.max_statistic(
        observed, null, family=family if family.any() else known, larger=how.larger, level=level
    )
    found = {"null_mean": test.mean, "null_deviation": test.deviation, "p": test.p}
    found |= {"p_map": test.p_map, "critical": test.critical}
    for name in ("p", "p_map", "critical", "null_mean", "null_deviation"):
        found[name] = np.where(known, found[name], np.nan)
    said = {
        "n": len(groups),
        "unit": unit,
        "units": len(names),
        "permutations": len(orders),
        "seed": seed,
    }
    return found, said | {
        "null": f"whole {unit}s exchanged; p_map by the largest standardised cell of the map"
    }


def _interval(
    how: SimilarityMeasure,
    layers: tuple[Layers, Layers],
    pairs: Pairs,
    observed: np.ndarray,
    counts: tuple[int, int],
    level: float,
    correct: bool,
) -> stats.Interval:
    """Of every cell, by leaving out each prompt and each seed; ``counts``: of prompts and seeds."""
    sample = np.arange(counts[0] * counts[1])
    of = sample // counts[1], sample % counts[1]
    known = np.isfinite(observed)

    def without(i: int, u: int) -> np.ndarray:
        a, b = (_prepared(how, x, np.flatnonzero(of[i] != u)) for x in layers)
        return _cells(how, a, b, pairs)

    left_out = {
        unit: np.stack([without(i, u) for u in range(counts[i])])[:, known]
        for i, unit in enumerate(UNITS)
        if counts[i] > 1
    }
    cells = observed[known]
    if len(left_out) == 2:
        interval = crossed_jackknife(cells, *left_out.values(), level=level, correct=correct)
    else:
        ((unit, values),) = left_out.items()
        interval = stats.jackknife(cells, values, level=level, unit=unit)

    def whole(part: np.ndarray) -> np.ndarray:
        everywhere = np.full(observed.shape, np.nan)
        everywhere[known] = part
        return everywhere

    estimate, low, high = (whole(x) for x in (interval.estimate, interval.low, interval.high))
    return stats.Interval(estimate, low, high, interval.attrs)


def _halves(
    how: SimilarityMeasure, layers: Layers, n_prompts: int, n_seeds: int
) -> np.ndarray | None:
    """(step, layer) similarity of each layer to itself under other seeds; None where halves are too
    few samples.
    """
    half = n_seeds // 2
    if n_prompts * half < how.least:
        return None
    first = (np.arange(n_prompts)[:, None] * n_seeds + np.arange(half)).reshape(-1)
    return _themselves(how, _prepared(how, layers, first), _prepared(how, layers, first + half))


def _ceiling(
    how: SimilarityMeasure,
    trace: Any,
    a: Layers,
    prepared_a: Steps,
    trace_a: Any,
    branch: str,
    wanted: set[int],
) -> np.ndarray:
    """(step, layer) similarity of each layer of trace_a to the same layer of the trace that is its
    ceiling.
    """
    sizes = [[t.sizes[dim] for dim in ("prompt", "seed")] for t in (trace, trace_a)]
    if sizes[0] != sizes[1] or not np.array_equal(trace["sigma"].values, trace_a["sigma"].values):
        raise ValueError(
            "the ceiling must hold as many prompts and seeds as trace_a, on its noise levels: "
            f"it has {sizes[0]} prompts and seeds, trace_a {sizes[1]}"
        )
    layers = layers_of(
        trace, how, trace["prompt"].values, trace["seed"].values, branch, "ceiling", wanted
    )
    if layers.names != a.names:
        raise ValueError(
            f"the ceiling must be read where trace_a is: {layers.names} are not {a.names}"
        )
    everything = np.arange(sizes[0][0] * sizes[0][1])
    return _themselves(how, prepared_a, _prepared(how, layers, everything))


def _themselves(how: SimilarityMeasure, a: Steps, b: Steps) -> np.ndarray:
    """(step, layer) similarity of each representation to the one in its place."""
    return np.array(
        [
            [
                np.nan if x is None or y is None else how.compare([x], [y])[0, 0]
                for x, y in zip(s, t, strict=True)
            ]
            for s, t in zip(a, b, strict=True)
        ]
    )


def _dataset(
    found: dict[str, np.ndarray],
    a: Layers,
    b: Layers,
    pairs: Pairs,
    sigmas: tuple[np.ndarray, np.ndarray],
    align: str | None,
) -> xr.Dataset:
    layers = {"layer_a": a.names, "layer_b": b.names}
    if align:
        steps = {f"step_{s}": ("pair", [pair[i] for pair in pairs]) for i, s in enumerate("ab")}
        levels = {
            f"sigma_{s}": ("pair", sigmas[i][[pair[i] for pair in pairs]])
            for i, s in enumerate("ab")
        }
        dims: tuple[str, ...] = ("pair", "layer_a", "layer_b")
        arrays = {k: ((*dims, BOUND)[: v.ndim], v) for k, v in found.items()}
        return _with_bound(xr.Dataset(arrays, layers | steps | levels))
    pattern = "(step_a step_b) layer_a layer_b ... -> layer_a step_a layer_b step_b ..."
    dims = ("layer_a", "step_a", "layer_b", "step_b")
    cells = {
        k: ((*dims, BOUND)[: v.ndim + 1], rearrange(v, pattern, step_a=len(sigmas[0])))
        for k, v in found.items()
    }
    levels = {f"sigma_{s}": (f"step_{s}", sigmas[i]) for i, s in enumerate("ab")}
    return _with_bound(xr.Dataset(cells, layers | levels))


def _with_bound(data: xr.Dataset) -> xr.Dataset:
    return data.assign_coords({BOUND: list(BOUNDS)}) if BOUND in data.dims else data

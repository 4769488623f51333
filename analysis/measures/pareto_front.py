"""Which methods are on the front of diversity, fidelity and cost, and how far from it the others
are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis import stats
from xhat.analysis.measures.by_seed import values_of
from xhat.analysis.verdicts import Verdict, best_of

ROUNDING = 1e-6
"""Values that differ by no more are equal: the same pictures made in another order of operations
differ in their last digits."""


def on_front(values: Any) -> np.ndarray:
    """(n,) whether no other row is at least as good in every column and better in one. Larger is
    better.

    ``values``: (n, d). Rows that are equal, but for :data:`ROUNDING`, do not push each other out.
    Raises ValueError for another shape, and NaN.

    >>> on_front([[1, 3], [2, 2], [1, 2]]).tolist()
    [True, True, False]
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 2 or np.isnan(x).any():
        raise ValueError(f"a front needs values (n, d) without NaN, got shape {x.shape}")
    no_worse = (x[:, None] >= x[None] - ROUNDING).all(-1)
    better = (x[:, None] > x[None] + ROUNDING).any(-1)
    return np.logical_not((no_worse & better).any(0))


def front_share(
    measured: xr.Dataset,
    names: tuple[str, ...],
    cost: str = "evaluations",
    *,
    seed: int = 0,
    resamples: int = stats.RESAMPLES,
) -> np.ndarray:
    """(arm,) share of bootstrap samples of prompts and seeds in which an arm is on the front of
    ``names`` and low ``cost``.

    ``measured``: variables ``names`` (arm, prompt), with their values by seed where there are any,
    and ``cost`` (arm), of
    :func:`~xhat.analysis.sampling.arms.measure_arms`."""
    rows = stats.draws(measured.sizes["prompt"], resamples, seed)
    seeds = measured.sizes.get("seed")
    columns = None if seeds is None else stats.draws(seeds, resamples, seed + 1)
    means = [_drawn_means(measured, name, rows, columns) for name in names]
    price = -np.repeat(measured[cost].values[:, None], resamples, axis=1)
    stacked = np.stack([*means, price], -1)  # (arm, resample, …)
    return np.mean([on_front(stacked[:, i]) for i in range(resamples)], axis=0)


def _drawn_means(
    measured: xr.Dataset, name: str, rows: np.ndarray, columns: np.ndarray | None
) -> np.ndarray:
    """(arm, resample) means over prompts and seeds that were drawn, the same for every arm."""
    values = np.stack([values_of(measured.isel(arm=i), name) for i in range(measured.sizes["arm"])])
    if columns is None or values.shape[2] == 1:
        return np.einsum("aps,rp->ar", values, rows)
    return np.einsum("aps,rp,rs->ar", values, rows, columns, optimize=True)


@dataclass(frozen=True)
class Distance:
    """How far an arm is from the front: by ``verdict``, on the difference ``other`` − arm.

    ``other``: the most diverse of ``rivals`` arms that are at most as dear and at least as
    faithful; the verdict's interval holds for all of them together, since the most diverse was
    picked."""

    other: str
    rivals: int
    verdict: Verdict


def distance(
    measured: xr.Dataset,
    arm: str,
    measure: str,
    cost: str = "evaluations",
    *,
    margin: float | None = None,
    strata: Sequence[str] | None = None,
) -> Distance | None:
    """Of :class:`Distance`, for ``arm`` among those of ``measured``; None where no other that
    can be compared is as cheap and as faithful. ``margin``, ``strata``: of
    :func:`~xhat.analysis.verdicts.verdict`.
    """
    rivals = measured[cost].values <= float(measured[cost].sel(arm=arm)) + 1e-9
    if "fidelity" in measured:
        faithful = measured["fidelity"].mean("prompt")
        rivals &= faithful.values >= float(faithful.sel(arm=arm)) - 1e-12
    mine = values_of(measured.sel(arm=arm), measure)
    others = [str(name) for name in measured["arm"].values[rivals] if str(name) != arm]
    by_name = {name: values_of(measured.sel(arm=name), measure) - mine for name in others}
    by_name = {name: gap for name, gap in by_name.items() if np.isfinite(gap).all()}
    if not by_name:
        return None
    names, gaps = list(by_name), np.stack(list(by_name.values()))
    best, judged = best_of(gaps, margin, strata=strata)
    return Distance(names[best], len(names), judged)

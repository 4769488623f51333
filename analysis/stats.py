"""The resampling that is right for each kind of number, in one place.

======================================  ==========================================================
number                                  what is done
======================================  ==========================================================
a mean over prompts                     bootstrap of prompts, :func:`bootstrap_mean`
a difference or ratio of two arms       the same prompts drawn in both, :func:`paired_ratio`,
                                        :func:`bootstrap_difference`
a similarity of representations         jackknife over prompts, :func:`jackknife`: a bootstrap draws
                                        prompts twice, and duplicates fake similarity
is there any similarity at all          permutation of whole prompts, :func:`group_permutations`,
                                        corrected over a map by :func:`max_statistic`
======================================  ==========================================================

Every result says its method, level, number and kind of units, and seed in ``attrs``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, permutations
from math import factorial
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import norm, t

from xhat.analysis.intervals import bounded

LEVEL, RESAMPLES = 0.95, 2000


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval; arrays of one shape. NaN bounds: too few units to say."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    attrs: dict[str, Any]

    def bounds(self) -> np.ndarray:
        """(2, …) array of the lower and the upper bound."""
        return np.stack([self.low, self.high])

    def array(
        self, dims: str | Sequence[Any] = (), coords: Mapping[str, Any] | None = None
    ) -> xr.DataArray:
        """With a last dimension ``bound``, of :func:`~xhat.analysis.intervals.bounded`."""
        attrs = {k: v for k, v in self.attrs.items() if k not in ("interval", "level")}
        return bounded(
            self.estimate,
            self.low,
            self.high,
            level=self.attrs["level"],
            method=self.attrs["interval"],
            dims=dims,
            coords=coords,
            **attrs,
        )


def bootstrap_mean(
    values: Any,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
    unit: str = "prompt",
) -> Interval:
    """Mean over the first axis, with an expanded percentile bootstrap interval over its units.

    Units are drawn with replacement; quantiles are taken at Φ(±√(n/(n−1))·t₍ₙ₋₁₎), which undoes the
    narrowness of the plain percentile interval at few units. Source: Hesterberg 2015,
    doi:10.1080/00031305.2015.1089789, section 5.2. ``values``: (units, …). With one unit the bounds
    are NaN. Raises ValueError without units, for NaN, and for a level outside (0, 1).

    >>> interval = bootstrap_mean([1.0, 2.0, 3.0, 4.0])
    >>> float(interval.estimate), bool(interval.low < 2.5 < interval.high)
    (2.5, True)
    """
    values = _units(values, "values")
    drawn = draws(len(values), resamples, seed) @ values.reshape(len(values), -1)
    low, high = _expanded_quantiles(drawn, len(values), level)
    attrs = _attrs(
        "expanded percentile bootstrap of the mean", level, len(values), unit, resamples, seed
    )
    shape = values.shape[1:]
    return Interval(values.mean(0), low.reshape(shape), high.reshape(shape), attrs)


def bootstrap_difference(a: Any, b: Any, **options: Any) -> Interval:
    """Mean over units of b − a, the same units drawn in both arms; options of
    :func:`bootstrap_mean`.
    """
    a, b = _paired(a, b)
    interval = bootstrap_mean(b - a, **options)
    return Interval(
        interval.estimate,
        interval.low,
        interval.high,
        {**interval.attrs, "paired": "b - a, unit by unit"},
    )


def paired_ratio(
    a: Any,
    b: Any,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
    unit: str = "prompt",
) -> Interval:
    """Mean of b over mean of a, with a bootstrap interval that draws the same units in both
    arms.
    """
    a, b = _paired(a, b)
    weights = draws(len(a), resamples, seed)
    drawn = (weights @ b.reshape(len(b), -1)) / (weights @ a.reshape(len(a), -1))
    low, high = _expanded_quantiles(drawn, len(a), level)
    attrs = _attrs(
        "expanded percentile bootstrap of the ratio of means", level, len(a), unit, resamples, seed
    )
    shape = a.shape[1:]
    attrs["paired"] = "mean of b / mean of a, the same units drawn in both"
    return Interval(b.mean(0) / a.mean(0), low.reshape(shape), high.reshape(shape), attrs)


def jackknife(
    estimate: Any, left_out: Any, *, level: float = LEVEL, unit: str = "prompt"
) -> Interval:
    """Interval of a statistic from its values with each unit left out in turn.

    estimate ± t₍ₙ₋₁₎·√((n−1)/n · Σ(θ₍ᵢ₎ − θ̄)²). ``left_out``: (units, …), ``estimate``: (…).
    Source: Efron & Stein 1981, doi:10.1214/aos/1176345462. Raises ValueError for fewer than two
    units, and for NaN."""
    left_out = _units(left_out, "left_out")
    n = len(left_out)
    if n < 2:
        raise ValueError(f"a jackknife needs at least 2 units to leave out, got {n}")
    _check_level(level)
    error = np.sqrt((n - 1) / n * ((left_out - left_out.mean(0)) ** 2).sum(0))
    half = t.ppf((1 + level) / 2, n - 1) * error
    estimate = np.asarray(estimate, dtype=np.float64)
    attrs = _attrs("jackknife, Student's t", level, n, unit)
    return Interval(estimate, estimate - half, estimate + half, attrs)


def group_permutations(groups: Any, count: int, seed: int = 0) -> np.ndarray:
    """(m, n) orders of samples in which whole groups change places; the identity is not among them.

    ``groups``: (n,) labels, each with equally many samples, whose order within a group is kept. All
    orders are listed where there are no more than ``count``; else ``count`` are drawn. Raises
    ValueError for groups of unequal size, and for a single group.

    >>> group_permutations(["a", "a", "b", "b"], count=10)
    array([[2, 3, 0, 1]])
    """
    groups = np.asarray(groups)
    names, sizes = np.unique(groups, return_counts=True)
    if len(names) < 2 or len(set(sizes.tolist())) > 1:
        raise ValueError(
            "whole groups can change places only where there are two or more of one size, "
            f"got sizes {sizes.tolist()}"
        )
    members = np.argsort(np.unique(groups, return_inverse=True)[1], kind="stable").reshape(
        len(names), -1
    )
    g = len(names)
    orders: Sequence[Sequence[int] | np.ndarray]
    if g <= 8 and factorial(g) - 1 <= count:
        orders = list(islice(permutations(range(g)), 1, None))
    else:
        orders = _drawn_orders(g, count, seed)
    result = np.empty((len(orders), len(groups)), dtype=np.intp)
    for row, order in zip(result, orders, strict=True):
        row[members.reshape(-1)] = members[list(order)].reshape(-1)
    return result


@dataclass(frozen=True)
class NullTest:
    """Permutation test of many cells: null mean and deviation, raw and map-wide p, and the critical
    value.

    ``p``: share of orders in which the cell is at least as extreme; ``p_map``: share in which the
    *most extreme cell of the family* is, so that a map of unrelated cells holds any p_map ≤ α with
    chance α. ``critical``: value of each cell at which p_map reaches 1 − level."""

    mean: np.ndarray
    deviation: np.ndarray
    p: np.ndarray
    p_map: np.ndarray
    critical: np.ndarray


def max_statistic(
    observed: np.ndarray,
    null: np.ndarray,
    *,
    family: np.ndarray | None = None,
    larger: bool = True,
    level: float = LEVEL,
) -> NullTest:
    """Test of cells against their permutations, corrected over the family by the largest deviation.

    Each cell is first set to its own null's mean and deviation (the observed order counted in), so
    that a noisy cell does not set the bar for all. ``observed``: (…), ``null``: (orders, …);
    ``family``: (…) bool, the cells corrected together (default all); ``larger=False`` for
    distances. Cells outside the family get NaN in p_map. Source: Westfall & Young 1993, algorithm
    2.5 (single step); Phipson & Smyth 2010 for +1."""
    sign = 1.0 if larger else -1.0
    both = sign * np.concatenate([observed[None], null])
    mean, deviation = both.mean(0), both.std(0)
    z = np.divide(both - mean, deviation, out=np.zeros_like(both), where=deviation > 1e-12)
    family = np.ones(observed.shape, dtype=bool) if family is None else family
    largest = z[:, family].max(1)
    tolerance = 1e-9  # equal up to rounding counts as equal: orders may leave a cell as it was
    p = (z >= z[0] - tolerance).mean(0)
    p_map = np.array((largest.reshape(-1, *[1] * observed.ndim) >= z[0] - tolerance).mean(0))
    p_map[~family] = np.nan
    bar = np.quantile(largest, level, method="higher")
    return NullTest(sign * mean, deviation, p, p_map, sign * (mean + bar * deviation))


def _drawn_orders(g: int, count: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    orders: list[np.ndarray] = []
    while len(orders) < count:
        order = rng.permutation(g)
        if (order != np.arange(g)).any():
            orders.append(order)
    return orders


def draws(n: int, resamples: int, seed: int) -> np.ndarray:
    """(resamples, n) weights that sum to 1: how often each unit was drawn, over n."""
    if resamples < 100:
        raise ValueError(f"at least 100 resamples are needed for an interval, got {resamples}")
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples) / n


def _expanded_quantiles(draws: np.ndarray, n: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    _check_level(level)
    if n < 2:
        missing = np.full(draws.shape[1:], np.nan)
        return missing, missing
    tail = norm.cdf(np.sqrt(n / (n - 1)) * t.ppf((1 - level) / 2, n - 1))
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    return low, high


def _units(values: Any, name: str) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim == 0 or len(values) == 0:
        raise ValueError(
            f"{name} must have its units along the first axis, got shape {values.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds NaN or infinite values: no interval can be given")
    return values


def _paired(a: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    a, b = _units(a, "a"), _units(b, "b")
    if a.shape != b.shape:
        raise ValueError(
            f"paired arms must have the same units and shape, got {a.shape} and {b.shape}"
        )
    return a, b


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")


def _attrs(
    method: str,
    level: float,
    n: int,
    unit: str,
    resamples: int | None = None,
    seed: int | None = None,
) -> dict[str, Any]:
    attrs: dict[str, Any] = {"interval": method, "level": level, "n": n, "unit": unit}
    if resamples is not None:
        attrs |= {"resamples": resamples, "seed": seed}
    return attrs

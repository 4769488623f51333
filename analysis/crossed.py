"""Means over prompts × seeds, where both are samples and every prompt is run under the same seeds.

A value of prompt p and seed s is m + aₚ + bₛ + eₚₛ. What a seed adds it adds to every prompt, so
that more prompts do not average it away: the variance of the mean over P prompts and S seeds is
σ²(a)/P + σ²(b)/S + σ²(e)/(PS). Intervals over prompts alone leave the second part out, intervals
over P·S pooled pictures the first two.

A measure that is no mean of pictures (a Vendi score, an entropy) comes here as its values by seed,
of :mod:`xhat.analysis.measures.by_seed`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm, t

from xhat.analysis.stats import LEVEL, Interval

METHOD = "two-way analysis of variance, Student's t"
FLOOR = 0.8
"""Least share of the larger mean square that the variance may be: differences of mean squares can
come out at zero, and an interval without width would be wrong."""


class UndefinedRatio(ValueError):
    """A ratio was asked for whose denominator is not told from zero."""


@dataclass(frozen=True)
class Components:
    """Variances of prompts, of seeds and of what is left, of shape (…), with P and S."""

    prompt: np.ndarray
    seed: np.ndarray
    rest: np.ndarray
    prompts: int
    seeds: int

    def error(self, prompts: int, seeds: int) -> np.ndarray:
        """Standard error that a mean over so many prompts and seeds would have."""
        variance = self.prompt / prompts + self.seed / seeds + self.rest / (prompts * seeds)
        return np.sqrt(variance)


def crossed_mean(
    values: Any, *, level: float = LEVEL, strata: Sequence[Any] | None = None
) -> Interval:
    """Mean over prompts and seeds, with an interval for new prompts *and* new seeds.

    Parameters
    ----------
    values
        (prompt, seed, …). With one seed, of per-prompt values (prompt, 1, …), the interval is
        Student's over prompts.
    level
        Confidence level.
    strata
        Kind of each prompt, where the kinds and their shares are fixed and prompts are samples
        within them: differences between kinds then do not widen the interval.

    Returns
    -------
    Interval
        Of shape (…), NaN bounds for a single prompt; ``attrs`` hold method, level, and numbers
        of prompts and seeds.

    Raises
    ------
    ValueError
        For NaN, infinite values, another shape, a level outside (0, 1), and a stratum with one
        prompt.

    Notes
    -----
    (MS_prompt + MS_seed − MS_rest)/(PS) is the unbiased variance of the mean of a crossed layout
    with random rows and columns; degrees of freedom by Satterthwaite. It is not let below 0.8 of
    the larger of the two mean squares. Coverage is measured in ``benchmarks/coverage.py``.

    References
    ----------
    Searle, Casella & McCulloch 1992, *Variance Components*, section 4.3; Satterthwaite 1946,
    doi:10.2307/3002019.

    Examples
    --------
    >>> found = crossed_mean([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0], [3.0, 4.0, 5.0]])
    >>> float(found.estimate), found.attrs["prompts"], found.attrs["seeds"]
    (3.0, 3, 3)
    """
    values = crossed_values(values)
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    estimate = values.mean((0, 1))
    prompts, seeds = values.shape[:2]
    attrs = {"interval": METHOD, "level": level, "n": prompts, "unit": "prompt"}
    attrs |= {"prompts": prompts, "seeds": seeds}
    if strata is not None:
        attrs["strata"] = len(set(map(str, strata)))
    if prompts < 2:
        missing = np.full(estimate.shape, np.nan)
        return Interval(estimate, missing, missing, attrs)
    error, freedom = standard_error(values, strata)
    half = t.ppf((1 + level) / 2, freedom) * error
    return Interval(estimate, estimate - half, estimate + half, attrs)


def crossed_columns(values: Any, **options: Any) -> Interval:
    """:func:`crossed_mean` of every column that is finite; the mean without bounds of the others.

    A diversity is infinite where no two of its samples share anything.
    """
    values = np.asarray(values, dtype=np.float64)
    flat = values.reshape(*values.shape[:2], -1)
    known = np.isfinite(flat).all((0, 1))
    found = crossed_mean(np.where(known, flat, 0.0), **options)
    with np.errstate(invalid="ignore"):
        estimate = np.where(known, found.estimate, flat.mean((0, 1)))
    low, high = (np.where(known, x, np.nan) for x in (found.low, found.high))
    shape = values.shape[2:]
    return Interval(estimate.reshape(shape), low.reshape(shape), high.reshape(shape), found.attrs)


def standard_error(
    values: np.ndarray, strata: Sequence[Any] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Standard error of the mean of (prompt, seed, …) values, and its degrees of freedom."""
    prompts, seeds = values.shape[:2]
    groups = _groups(strata, prompts)
    rows, columns, rest = _mean_squares(values, groups)
    freedom = prompts - len(groups), max(seeds - 1, 1), max((prompts - 1) * (seeds - 1), 1)
    total = rows + columns - rest
    parts = rows**2 / freedom[0] + columns**2 / freedom[1] + rest**2 / freedom[2]
    satterthwaite = np.divide(total**2, parts, out=np.ones_like(total), where=parts > 0)
    least = FLOOR * np.maximum(rows, columns)
    few = freedom[0] if seeds == 1 else min(freedom[:2])
    freedom_used = np.where(total > least, np.maximum(satterthwaite, few / 2), few)
    if seeds == 1:
        freedom_used = np.full_like(total, freedom[0])
        least = rows
    return np.sqrt(np.maximum(total, least) / (prompts * seeds)), freedom_used


def crossed_difference(a: Any, b: Any, **options: Any) -> Interval:
    """Mean of b − a, prompt by prompt and seed by seed; options of :func:`crossed_mean`.

    Raises ValueError for arms of other shapes.
    """
    a, b = _paired(a, b)
    interval = crossed_mean(b - a, **options)
    attrs = {**interval.attrs, "paired": "b - a, prompt by prompt and seed by seed"}
    return Interval(interval.estimate, interval.low, interval.high, attrs)


def crossed_ratio(a: Any, b: Any, *, level: float = LEVEL, strata: Any = None) -> Interval:
    """Mean of b over mean of a, paired, with Fieller's interval for new prompts and new seeds.

    The interval holds every r for which the mean of b − r·a is not told from zero; it may be open
    to one side. ``a``, ``b``: (prompt, seed). Raises :class:`UndefinedRatio` where the mean of a is
    not told from zero itself. Source: Fieller 1954, doi:10.1111/j.2517-6161.1954.tb00159.x.

    >>> a = np.array([[1.0, 2.0, 1.5], [2.0, 3.0, 2.5], [1.5, 2.5, 2.0]])
    >>> found = crossed_ratio(a, 3 * a)
    >>> round(float(found.low), 6), round(float(found.high), 6)
    (3.0, 3.0)
    """
    a, b = _paired(a, b)
    check_told(crossed_mean(a, level=level, strata=strata), "the denominator of this ratio")
    ratio = float(b.mean() / a.mean())

    def told(r: float) -> bool:
        interval = crossed_mean(b - r * a, level=level, strata=strata)
        return bool(interval.low > 0 or interval.high < 0)

    low, high = (_edge(told, ratio, sign) for sign in (-1, 1))
    attrs = crossed_mean(a, level=level, strata=strata).attrs
    attrs |= {"interval": f"Fieller, {METHOD}", "paired": "mean of b / mean of a"}
    return Interval(np.array(ratio), np.array(low), np.array(high), attrs)


def crossed_log_ratio(a: Any, b: Any, *, level: float = LEVEL, strata: Any = None) -> Interval:
    """Mean of b over mean of a, cell by cell, of quantities whose means are above zero, paired.

    exp(log r ± h), h the half width for b/b̄ − a/ā, the linear part of log r: for variances, which
    are never zero. ``a``, ``b``: (prompt, seed, …). Raises ValueError where a mean is not above
    zero.
    """
    a, b = _paired(a, b)
    means = a.mean((0, 1)), b.mean((0, 1))
    if not (np.min(means) > 0):
        raise ValueError(
            "a ratio on the logarithmic scale is of means above zero: give crossed_ratio"
        )
    linear = crossed_mean(b / means[1] - a / means[0], level=level, strata=strata)
    ratio, half = means[1] / means[0], np.exp((linear.high - linear.low) / 2)
    attrs = {**linear.attrs, "interval": f"{METHOD}, of the logarithm of the ratio"}
    attrs |= {"paired": "mean of b / mean of a, prompt by prompt and seed by seed"}
    return Interval(ratio, ratio / half, ratio * half, attrs)


def check_told(denominator: Interval, what: str) -> None:
    """Refuse a denominator whose interval holds zero: no ratio, share or percentage of it is made.

    Raises :class:`UndefinedRatio`, which says the interval.
    """
    low, high = float(denominator.low), float(denominator.high)
    if not (low > 0 or high < 0):
        raise UndefinedRatio(
            f"{what} is {float(denominator.estimate):.3g} [{low:.3g}, {high:.3g}], not told from "
            "zero: no ratio to it means anything. Give the difference, or measure more prompts "
            "and seeds"
        )


def components(values: Any, strata: Sequence[Any] | None = None) -> Components:
    """Variances of prompts, seeds and the rest, none below zero, from (prompt, seed, …) values.

    With one seed, of per-prompt values, prompts have all the variance. Raises ValueError for fewer
    than two prompts.
    """
    values = crossed_values(values)
    prompts, seeds = values.shape[:2]
    if prompts < 2:
        raise ValueError(f"the variance of prompts needs two of them, got {prompts}")
    rows, columns, rest = _mean_squares(values, _groups(strata, prompts))
    prompt = np.maximum(rows - rest, 0) / seeds
    return Components(prompt, np.maximum(columns - rest, 0) / prompts, rest, prompts, seeds)


def crossed_jackknife(
    estimate: Any,
    without_prompt: Any,
    without_seed: Any,
    *,
    level: float = LEVEL,
    correct: bool = True,
) -> Interval:
    """Interval of any statistic of prompts × seeds from its values with each of them left out.

    θ + (P − 1)(θ − θ̄₍₋ₚ₎) + (S − 1)(θ − θ̄₍₋ₛ₎), the bias of few prompts and few seeds taken off,
    and the two jackknife variances added: for similarities of representations, whose samples of
    one prompt, and of one seed, are alike beyond what the representations share.

    Parameters
    ----------
    estimate
        (…) of all prompts and seeds.
    without_prompt, without_seed
        (P, …) and (S, …), each with one prompt, or one seed, left out.
    level
        Confidence level.
    correct
        Whether the bias is taken off; not where the statistic itself depends on the number of
        samples, as neighbours do.

    References
    ----------
    Efron & Stein 1981, doi:10.1214/aos/1176345462; Owen 2007, doi:10.1214/07-AOAS122 (two ways).
    """
    estimate = np.asarray(estimate, dtype=np.float64)
    parts = [crossed_values(np.asarray(x)[:, None]) for x in (without_prompt, without_seed)]
    corrected, variances = estimate, []
    for left_out in (x[:, 0] for x in parts):
        n = len(left_out)
        if n < 2:
            raise ValueError(f"a jackknife needs at least 2 units to leave out, got {n}")
        if correct:
            corrected = corrected + (n - 1) * (estimate - left_out.mean(0))
        variances.append((n - 1) / n * ((left_out - left_out.mean(0)) ** 2).sum(0))
    total = variances[0] + variances[1]
    prompts, seeds = (len(x) for x in parts)
    spread = variances[0] ** 2 / (prompts - 1) + variances[1] ** 2 / (seeds - 1)
    freedom = np.divide(total**2, spread, out=np.ones_like(total), where=spread > 0)
    half = t.ppf((1 + level) / 2, freedom) * np.sqrt(total)
    attrs = {"interval": "two-way jackknife, Student's t", "level": level, "n": prompts}
    attrs |= {"unit": "prompt", "prompts": prompts, "seeds": seeds}
    return Interval(corrected, corrected - half, corrected + half, attrs)


def simultaneous(
    values: Any,
    *,
    level: float = LEVEL,
    strata: Sequence[Any] | None = None,
    draws: int = 4000,
    seed: int = 0,
) -> Interval:
    """Intervals of many means that hold together: for "the best of", and for tables of arms.

    Each mean's own interval is widened until, under no effect at all, the largest |t| of the
    family stays inside with probability ``level``; the dependence between arms (shared prompts
    and seeds) is drawn by multipliers of their prompts' and seeds' deviations.

    Parameters
    ----------
    values
        (arm, prompt, seed): differences from one reference; measures may be stacked as arms.
    level, strata
        As in :func:`crossed_mean`.
    draws, seed
        Multiplier draws, and their seed.

    References
    ----------
    Westfall & Young 1993; Chernozhukov et al. 2013, doi:10.1214/13-AOS1161 (multipliers).
    """
    values = np.moveaxis(np.asarray(values, dtype=np.float64), 0, -1)
    each = crossed_mean(values, level=level, strata=strata)
    if len(values) < 2:
        return each
    error, freedom = standard_error(values, strata)
    rows, columns = values.mean(1), values.mean(0) - values.mean((0, 1))
    for group in _groups(strata, len(values)):
        rows[group] -= rows[group].mean(0)
    rng = np.random.default_rng(seed)
    moved = rng.normal(size=(draws, len(rows))) @ rows / len(rows)
    moved += rng.normal(size=(draws, len(columns))) @ columns / len(columns)
    spread = np.sqrt((rows**2).sum(0) / len(rows) ** 2 + (columns**2).sum(0) / len(columns) ** 2)
    z = np.divide(np.abs(moved), spread, out=np.zeros_like(moved), where=spread > 0).max(1)
    tail = norm.sf(np.quantile(z, level))
    half = t.isf(tail, freedom) * error
    family = values.shape[-1]
    attrs = {**each.attrs, "interval": f"{METHOD}, largest of {family} held", "family": family}
    return Interval(each.estimate, each.estimate - half, each.estimate + half, attrs)


def crossed_values(values: Any) -> np.ndarray:
    """(prompt, seed, …) float64; ValueError for NaN, infinite values and fewer dimensions."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim < 2 or 0 in values.shape[:2]:
        raise ValueError(f"expected values (prompt, seed, …), got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("values hold NaN or infinite values: no interval can be given")
    return values


def _mean_squares(
    values: np.ndarray, groups: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean squares of prompts (within strata), of seeds, and of what is left."""
    prompts, seeds = values.shape[:2]
    rows, columns, mean = values.mean(1), values.mean(0), values.mean((0, 1))
    within = sum(((rows[g] - rows[g].mean(0)) ** 2).sum(0) for g in groups)
    ms_rows = seeds * within / max(prompts - len(groups), 1)
    if seeds == 1:
        return ms_rows, np.zeros_like(mean), np.zeros_like(mean)
    ms_columns = prompts * ((columns - mean) ** 2).sum(0) / (seeds - 1)
    rest = values - rows[:, None] - columns[None] + mean
    return ms_rows, ms_columns, (rest**2).sum((0, 1)) / max((prompts - 1) * (seeds - 1), 1)


def _groups(strata: Sequence[Any] | None, prompts: int) -> list[np.ndarray]:
    if strata is None:
        return [np.arange(prompts)]
    labels = np.asarray([str(s) for s in strata])
    if len(labels) != prompts:
        raise ValueError(f"strata must name the kind of each of {prompts} prompts: {len(labels)}")
    groups = [np.flatnonzero(labels == name) for name in np.unique(labels)]
    if small := [str(labels[g[0]]) for g in groups if len(g) < 2]:
        raise ValueError(
            f"a kind with one prompt says nothing of its spread: {', '.join(small)}. "
            "Take two prompts of each kind, or leave strata out"
        )
    return groups


def _paired(a: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    a, b = crossed_values(a), crossed_values(b)
    if a.shape != b.shape:
        raise ValueError(
            f"paired arms must have the same prompts and seeds, got {a.shape} and {b.shape}"
        )
    return a, b


def _edge(told: Any, start: float, sign: int) -> float:
    """Where ``told`` turns true going out from ``start``; infinite where it does not."""
    step, inside = max(abs(start), 1.0) * 1e-9, start
    while not told(start + sign * step):
        inside = start + sign * step
        step *= 4
        if step > 1e9 * max(abs(start), 1.0):
            return sign * np.inf
    outside = start + sign * step
    for _ in range(60):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if told(middle) else (middle, outside)
    return outside

"""Diversity as a mean over seeds: values by seed, and estimates without the bias of few seeds.

A measure of a set of samples that is no mean over them has a value for each seed all the same: the
jackknife's pseudo-value, S·θ − (S − 1)·θ₍₋ₛ₎, or its linear part. Their mean is the estimate with
the bias of order 1/S taken off, and their spread is what seeds do to it, so that prompts × seeds
can be treated as crossed samples (:mod:`xhat.analysis.crossed`).

Source: Efron & Stein 1981, doi:10.1214/aos/1176345462; Zahl 1977, doi:10.2307/1936227 (entropy)."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

BY_SEED = "_by_seed"
"""Ending of the variables that hold a measure's values by seed; their mean is the measure."""
LEAST_SEEDS = 3
"""Leaving one of two seeds out leaves no pair."""


def pairs_by_seed(k: Any) -> np.ndarray:
    """(…, n) values whose mean is the mean of k over pairs of different samples: 2·mean(k[s]) − k̄.

    ``k``: (…, n, n) symmetric; the diagonal is not read. Pseudo-values of a U-statistic of order 2.

    >>> pairs_by_seed(np.array([[1.0, 2, 4], [2, 1, 6], [4, 6, 1]])).tolist()
    [0.0, 4.0, 8.0]
    """
    k = _square(k)
    n = k.shape[-1]
    off = k * (1 - np.eye(n))
    rows = off.sum(-1)
    total = rows.sum(-1, keepdims=True)
    without = (total - 2 * rows) / ((n - 1) * (n - 2))
    return n * total / (n * (n - 1)) - (n - 1) * without


def vendi_q2_by_seed(k: Any) -> np.ndarray:
    """(…, n) values by seed of Vendi q = 2 as it would be at infinitely many seeds.

    The population's quantity is 1/E[k(x, x′)²] over independent x, x′. M, the mean of k² over pairs
    of *different* samples, has expectation E[k²]; 1/M is too large by its variance, hence
    M/(M² + v) with v the variance of M, and the linear part of M's values by seed
    around it. With samples that are orthogonal throughout it is infinite: more seeds are needed.

    Parameters
    ----------
    k
        (…, n, n) similarities with a diagonal of ones, n ≥ 3.

    Notes
    -----
    The plug-in n²/‖K‖² counts each sample as similar to itself, and so cannot pass n and falls
    short by more the more diverse the samples are: it understates collapse. The jackknife counts
    the second-order part of the variance of M twice (Efron & Stein 1981), which would take too much
    off where modes are even; v counts it once.

    Examples
    --------
    >>> vendi_q2_by_seed(np.ones((4, 4))).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    squares = _square(k) ** 2
    values = pairs_by_seed(squares)
    mean = values.mean(-1, keepdims=True)
    variance = _variance(squares, values)[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = 1 / (mean**2 + variance)
        result = mean * slope - (values - mean) * slope
    return np.where(mean > 0, result, np.inf)


def entropy_by_seed(labels: Any, n_values: int) -> np.ndarray:
    """(…, n) values by seed of the entropy of labels over ln(n_values), jackknifed.

    The plug-in falls short by (m − 1)/(2n) for m values; what is left here is of order 1/n². It is
    not clamped and may pass 1 by chance.

    Parameters
    ----------
    labels
        (…, n) integers from 0 to n_values − 1, n ≥ 3.

    Examples
    --------
    >>> entropy_by_seed([2, 2, 2, 2], 4).tolist()
    [0.0, 0.0, 0.0, 0.0]
    """
    labels = np.asarray(labels)
    n = labels.shape[-1]
    _enough(n)
    one = labels[..., None] == np.arange(n_values)
    counts = one.sum(-2, keepdims=True)
    return n * _entropy(counts) - (n - 1) * _entropy(counts - one)


def variance_by_seed(x: Any) -> np.ndarray:
    """(…, n, …) values along axis 1 whose mean is the unbiased variance along it: pseudo-values.

    ``x``: (prompt, seed, …), three seeds or more.

    >>> x = np.array([[1.0, 2.0, 4.0, 9.0]])
    >>> bool(np.isclose(variance_by_seed(x).mean(), x.var(ddof=1)))
    True
    """
    x = np.asarray(x, dtype=np.float64)
    n = x.shape[1]
    _enough(n)
    squares = (x - x.mean(1, keepdims=True)) ** 2
    variance = squares.sum(1, keepdims=True) / (n - 1)
    return variance * (n - (n - 1) ** 2 / (n - 2)) + squares * n / (n - 2)


def measure_names(found: xr.Dataset) -> list[str]:
    """Names of the measures (…, prompt, …) of a dataset, their values by seed left out."""
    return [
        str(name)
        for name, v in found.data_vars.items()
        if "prompt" in v.dims and "seed" not in v.dims and v.dtype.kind == "f"
    ]


def values_of(found: xr.Dataset, name: str) -> np.ndarray:
    """(prompt, seed, …) values by seed of a measure; (prompt, 1, …) where it has none."""
    if f"{name}{BY_SEED}" in found:
        return found[f"{name}{BY_SEED}"].transpose("prompt", "seed", ...).values
    return found[name].transpose("prompt", ...).values[:, None]


def _variance(k: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(…) variance of the mean of k over pairs: 4ζ₁/n + 2(ζ₂ − 2ζ₁)/(n(n − 1)), Hoeffding 1948.

    ζ₂, the variance of k over pairs, is read from them; ζ₁, of what a single sample does to it,
    from the jackknife's variance, which is about 4ζ₁/n + 4(ζ₂ − 2ζ₁)/(n(n − 1))."""
    n = k.shape[-1]
    above = np.triu_indices(n, 1)
    of_pairs = k[..., above[0], above[1]].var(-1, ddof=1)
    jackknife = values.var(-1, ddof=1) / n
    if n == LEAST_SEEDS:
        return jackknife
    of_one = (jackknife - 4 * of_pairs / (n * (n - 1))) * n * (n - 1) / (4 * (n - 3))
    of_one = np.clip(of_one, 0, of_pairs / 2)
    return 4 * of_one / n + 2 * (of_pairs - 2 * of_one) / (n * (n - 1))


def _entropy(counts: np.ndarray) -> np.ndarray:
    share = counts / counts.sum(-1, keepdims=True)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    return np.abs((share * logs).sum(-1)) / np.log(counts.shape[-1])


def _square(k: Any) -> np.ndarray:
    k = np.asarray(k, dtype=np.float64)
    if k.ndim < 2 or k.shape[-1] != k.shape[-2]:
        raise ValueError(f"expected similarities (…, n, n), got shape {k.shape}")
    _enough(k.shape[-1])
    return k


def _enough(n: int) -> None:
    if n < LEAST_SEEDS:
        raise ValueError(
            f"diversity without the bias of few seeds needs at least {LEAST_SEEDS} seeds, got {n}"
        )

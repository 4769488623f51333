"""How many different pictures there are in one set of samples, and how two arms differ.

Arms are compared at equal numbers of seeds, prompt by prompt: every one of these measures moves
with the number of samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from scipy.spatial.distance import cdist, pdist

from xhat.analysis import stats
from xhat.analysis.measures.grams import as_samples, raw_gram
from xhat.analysis.measures.kernels import rbf

KERNELS, DISTANCES = ("cosine", "rbf"), ("cosine", "euclidean")


def vendi(x: Any, *, q: float = 1, kernel: str = "cosine", sigma: float | None = None) -> float:
    """Effective number of different samples: 1 where all are alike, n where all n are orthogonal.

    exp of the Rényi entropy of order q of the eigenvalues λ of K/n: (Σ λ^q)^(1/(1−q)), exp(−Σ λ ln
    λ) at q = 1, 1/max λ at q = ∞. A larger q looks at common modes and settles with fewer samples;
    q = 2 is n²/‖K‖², without eigenvalues.

    Parameters
    ----------
    x
        (n, d) features.
    q
        Order, above 0.
    kernel
        ``"cosine"``, features as they are, or ``"rbf"``, exp(−d²/2σ²).
    sigma
        σ of ``rbf``, the same for every set that is compared.

    Returns
    -------
    float
        From 1 to n.

    Raises
    ------
    ValueError
        For shapes that do not fit, NaN, a sample of length zero under ``cosine``, and q ≤ 0.

    References
    ----------
    Friedman & Dieng 2023, arXiv:2210.02410, definition 3.1; Pasarkar & Dieng 2024,
    arXiv:2310.12952, eq. 2.

    Examples
    --------
    >>> round(vendi(np.eye(5)), 6), round(vendi(np.ones((5, 3)), q=2), 6)
    (5.0, 1.0)
    """
    if not q > 0:
        raise ValueError(
            f"q, the order of the entropy, must be above 0 (1, 2, …, or float('inf')), got {q}"
        )
    k = similarities(x, kernel, sigma)
    n = len(k)
    if q == 2:
        return float(n**2 / np.vdot(k, k))
    values = np.linalg.eigvalsh(k / n)
    values = values[
        values > values.max() * n * np.finfo(np.float64).eps
    ]  # what is left of zeros counts at small q
    if np.isinf(q):
        return float(1 / values.max())
    if abs(q - 1) < 1e-7:  # closer, the general form divides rounding by rounding
        return float(np.exp(-(values @ np.log(values))))
    return float((values**q).sum() ** (1 / (1 - q)))


def mean_pairwise_distance(x: Any, *, metric: str = "cosine") -> float:
    """Mean over unordered pairs of different samples of 1 − cos(xᵢ, xⱼ), or of ‖xᵢ − xⱼ‖.

    One outlier moves it: read it beside :func:`vendi`.

    Parameters
    ----------
    x
        (n, d) features, n ≥ 2.
    metric
        ``"cosine"`` or ``"euclidean"``.

    Returns
    -------
    float
        0 to 2 for ``cosine``, 0 or more for ``euclidean``.

    Raises
    ------
    ValueError
        For shapes that do not fit, NaN, and a sample of length zero under ``cosine``.

    Examples
    --------
    >>> mean_pairwise_distance(np.eye(4))
    1.0
    >>> mean_pairwise_distance([[0.0, 0], [3, 4]], metric="euclidean")
    5.0
    """
    if metric not in DISTANCES:
        raise ValueError(f"metric must be one of {DISTANCES}, got {metric!r}")
    x = _finite(x, "x", 2)
    if metric == "euclidean":
        return float(pdist(x).mean())
    k = similarities(x, "cosine", None)
    return float(1 - k[np.triu_indices(len(k), 1)].mean())


def prdc(real: Any, fake: Any, *, k: int = 5) -> dict[str, float]:
    """Precision, recall, density and coverage of ``fake`` against ``real`` samples.

    With balls reaching to each sample's k-th neighbour of its own kind, itself left out, and
    strictly inside them: precision, share of fakes in any real ball; recall, share of reals in any
    fake ball; density, real balls that a fake is in, over k, averaged (above 1 where fakes crowd);
    coverage, share of real balls that hold a fake.

    Parameters
    ----------
    real, fake
        (n, d) and (m, d) features.
    k
        Which neighbour a ball reaches to.

    Returns
    -------
    dict
        ``precision``, ``recall``, ``density``, ``coverage``.

    Raises
    ------
    ValueError
        For shapes that do not fit, NaN, and k not below both numbers of samples.

    References
    ----------
    Kynkäänniemi et al. 2019, arXiv:1904.06991; Naeem et al. 2020, arXiv:2002.09797, eq. 1-6.
    """
    real, fake = _finite(real, "real", 2), _finite(fake, "fake", 2)
    if real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"real has {real.shape[1]} features and fake {fake.shape[1]}: both must be in one space"
        )
    if not 1 <= k < min(len(real), len(fake)):
        raise ValueError(
            f"k must be at least 1 and below both sample numbers, {len(real)} and {len(fake)}: "
            f"got {k}"
        )
    across = cdist(real, fake)
    reach_real, reach_fake = _reach(real, k), _reach(fake, k)
    in_real = across < reach_real[:, None]
    return {
        "precision": float(in_real.any(0).mean()),
        "recall": float((across < reach_fake[None, :]).any(1).mean()),
        "density": float(in_real.sum(0).mean() / k),
        "coverage": float(in_real.any(1).mean()),
    }


def attribute_entropy(labels: Any, n_values: int, *, corrected: bool = False) -> float:
    """Shannon entropy of integer labels over ln(n_values): 1 where all values are equally frequent,
    0 for one value.

    From n samples it comes out too small, by about (n_values − 1)/(2n·ln n_values) for a uniform
    law: compare equal n only. ``corrected`` adds Miller and Madow's (m − 1)/(2n) for m values seen,
    before the division; it is not clamped and may pass 1. ``labels``: (n,) integers from 0 to
    n_values − 1. Raises ValueError for others. Source: Miller 1955.

    >>> attribute_entropy([0, 1, 2, 3], 4), attribute_entropy([2, 2, 2, 2], 4)
    (1.0, 0.0)
    """
    counts = _counts(labels, n_values)
    share = counts[counts > 0] / counts.sum()
    entropy = abs(float(share @ np.log(share)))
    if corrected:
        entropy += (len(share) - 1) / (2 * counts.sum())
    return float(entropy / np.log(n_values))


def mode_coverage(labels: Any, n_modes: int, *, least: int = 1) -> float:
    """Share of the ``n_modes`` known modes that at least ``least`` samples fall in, 0 to 1.

    It rises with n: compare equal n only. n uniform samples cover 1 − (1 − 1/n_modes)ⁿ on average.
    ``labels``: (n,) integers from 0 to n_modes − 1; of several attributes, pass
    ``np.ravel_multi_index``. Raises ValueError for others.

    >>> mode_coverage([0, 0, 2], 4), mode_coverage([0, 0, 2], 4, least=2)
    (0.5, 0.25)
    """
    if least < 1:
        raise ValueError(f"a mode is covered by at least 1 sample, got least={least}")
    return float((_counts(labels, n_modes) >= least).mean())


def paired_difference(a: xr.DataArray, b: xr.DataArray, **options: Any) -> xr.Dataset:
    """Mean over prompts of b − a, with the same prompts drawn in both.

    Parameters
    ----------
    a, b
        One variable of two arms, with a ``prompt`` dimension.
    **options
        Those of :func:`~xhat.analysis.stats.bootstrap_mean`.

    Returns
    -------
    Dataset
        ``mean``, ``low`` and ``high``.

    Raises
    ------
    ValueError
        For other prompts, other shapes, or other numbers of seeds behind the two.
    """
    if "prompt" not in a.dims or set(a.dims) != set(b.dims):
        raise ValueError(
            f"both arms need a prompt dimension and the same dimensions, got {a.dims} and {b.dims}"
        )
    a = a.transpose("prompt", ...)
    b = b.transpose(*a.dims)
    if not np.array_equal(a["prompt"].values, b["prompt"].values):
        raise ValueError(
            "the arms hold different prompts, or in another order: select the same from both"
        )
    n = [arm.attrs.get("n_seeds") for arm in (a, b)]
    if None not in n and n[0] != n[1]:
        raise ValueError(
            f"diversity grows with the number of seeds: a has {n[0]}, b has {n[1]}; take equally "
            "many"
        )
    interval = stats.bootstrap_difference(a.values, b.values, **options)
    bounds = {"mean": interval.estimate, "low": interval.low, "high": interval.high}
    return xr.Dataset(
        {name: (a.dims[1:], value) for name, value in bounds.items()}, attrs=interval.attrs
    )


def _counts(labels: Any, n_values: int) -> np.ndarray:
    """(n_values,) how often each value occurs."""
    labels = np.asarray(labels)
    if n_values < 2:
        raise ValueError(
            f"an attribute must be able to take at least 2 values, got n_values={n_values}"
        )
    if labels.ndim != 1 or labels.size == 0 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be (n,) integers, n ≥ 1: got shape {labels.shape}, dtype {labels.dtype}"
        )
    if labels.min() < 0 or labels.max() >= n_values:
        raise ValueError(
            f"labels must be from 0 to {n_values - 1}, got {labels.min()} to {labels.max()}"
        )
    return np.bincount(labels.astype(np.intp), minlength=n_values)


def similarities(x: Any, kernel: str = "cosine", sigma: float | None = None) -> np.ndarray:
    """(n, n) similarities of samples with a diagonal of ones: what :func:`vendi` looks at."""
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {KERNELS}, got {kernel!r}")
    if (kernel == "rbf") != (sigma is not None) or (sigma is not None and not sigma > 0):
        raise ValueError(
            f"the rbf kernel, and no other, needs a positive sigma: got {kernel=}, sigma={sigma}"
        )
    x = _finite(x, "x", 1)
    if kernel == "rbf":
        return rbf(raw_gram(x - x[:1]) if len(x) > 1 else np.zeros((1, 1)), sigma)
    x = x / np.where(
        (largest := np.abs(x).max(1, keepdims=True)) > 0, largest, 1
    )  # squares must not over- or underflow
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    if not lengths.min() > 0:
        raise ValueError("a sample of x is zero in every feature: it has no direction to compare")
    x = x / lengths
    return x @ x.T


def _finite(x: Any, name: str, least: int) -> np.ndarray:
    x = as_samples(x, name, least).astype(np.float64)
    if not np.isfinite(x).all():
        raise ValueError(f"{name} holds NaN or infinite values")
    return x


def _reach(x: np.ndarray, k: int) -> np.ndarray:
    """Distance of each sample to its k-th nearest other."""
    return np.partition(cdist(x, x), k, axis=1)[:, k]  # place 0 is the sample itself, at distance 0

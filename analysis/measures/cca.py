"""Measures that align one representation with the other: SVCCA, PWCCA, angular Procrustes.

All three are computed in the space of samples, so that 1280 features over 256 samples cost a 256 ×
256 problem. Each works on a *factor*, (n, r) with r ≤ n, that equals the centred features up to a
rotation."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import qr

from xhat.analysis.measures.grams import as_samples, centre, recentre, same_samples


def svcca(x: Any, y: Any, *, variance: float = 0.99, dims: int | None = None) -> float:
    """Mean canonical correlation of the leading principal components of x and of y.

    Centre, SVD, keep the leading components; with orthonormal bases U, V of what is kept, the
    correlations are the singular values of UᵀV and their mean is over min(rank x, rank y).

    Parameters
    ----------
    x, y
        Representations of the same n samples, (n, p) and (n, q); arrays or tensors.
    variance
        Share of the squared singular values that the components hold.
    dims
        How many components, in place of a share.

    Returns
    -------
    float
        0 to 1.

    Raises
    ------
    ValueError
        For shapes that do not fit, NaN, constant features, and where what is kept spans all n − 1
        directions: every correlation is then 1 whatever the data.

    References
    ----------
    Raghu et al. 2017, arXiv:1706.05806, section 2.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(50, 4))
    >>> round(svcca(x, 3 * x[:, ::-1] + 7), 6)
    1.0
    """
    return svcca_of(*_factors(x, y), variance=variance, dims=dims)


def pwcca(x: Any, y: Any) -> float:
    """Canonical correlations of x and y, averaged with the share that each direction has in x.

    With canonical variates hᵢ of x and centred features xⱼ: Σ αᵢρᵢ / Σ αᵢ, αᵢ = Σⱼ |⟨hᵢ, xⱼ⟩|.
    Directional: the weights come from x. The sum over features depends on the axes of x, so
    rotations of x are not without effect.

    Parameters
    ----------
    x, y
        Representations of the same n samples, (n, p) and (n, q); arrays or tensors.

    Returns
    -------
    float
        0 to 1.

    Raises
    ------
    ValueError
        As :func:`svcca` does.

    References
    ----------
    Morcos et al. 2018, arXiv:1806.05759, eq. 3-4.
    """
    x, y = as_samples(x, "x"), as_samples(y, "y")
    same_samples(x, y)
    centred = centre(x, "x")
    u, rho, _ = _canonical(_basis(centred), _basis(centre(y, "y")))
    weights = np.abs(u.T @ centred).sum(1)
    return float(weights @ rho / weights.sum())


def procrustes(x: Any, y: Any) -> float:
    """Angle between two representations after the best rotation or reflection.

    arccos(‖XcᵀYc‖₊ / (‖Xc‖·‖Yc‖)), ‖·‖₊ the sum of singular values: the narrower of the two is
    padded with zeros, reflections are allowed. A metric on shapes.

    Parameters
    ----------
    x, y
        Representations of the same n samples, (n, p) and (n, q); arrays or tensors.

    Returns
    -------
    float
        Radians, 0 to π/2.

    Raises
    ------
    ValueError
        For shapes that do not fit, NaN and constant features.

    References
    ----------
    Williams et al. 2021, arXiv:2110.14739, eq. 4-5.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(50, 4))
    >>> round(procrustes(x, 3 * x[:, ::-1] + 7), 6)
    0.0
    """
    return procrustes_of(*_factors(x, y))


def svcca_of(
    x: np.ndarray, y: np.ndarray, *, variance: float = 0.99, dims: int | None = None
) -> float:
    """:func:`svcca` of two factors."""
    if not 0 < variance <= 1 or (dims is not None and dims < 1):
        raise ValueError(
            f"variance must be in (0, 1] and dims at least 1: got {variance=}, {dims=}"
        )
    u, v = (_basis(f - f.mean(0), variance, dims) for f in (x, y))
    return float(_canonical(u, v)[1].mean())


def procrustes_of(x: np.ndarray, y: np.ndarray) -> float:
    """:func:`procrustes` of two factors."""
    x, y = x - x.mean(0), y - y.mean(0)
    nuclear = np.linalg.svd(x.T @ y, compute_uv=False).sum()
    return float(np.arccos(min(1.0, nuclear / (np.linalg.norm(x) * np.linalg.norm(y)))))


def factor(x: Any, name: str = "x") -> np.ndarray:
    """(n, min(n, p)) features equal to centred ``x`` up to a rotation: R of a QR where p exceeds
    n.
    """
    y = centre(as_samples(x, name), name)
    return y if y.shape[1] <= len(y) else qr(y.T, mode="r")[0][: len(y)].T


def factor_of_gram(gram: np.ndarray) -> np.ndarray:
    """(n, r) features whose Gram matrix is ``gram``, centred: the original ones up to a
    rotation.
    """
    values, vectors = np.linalg.eigh(recentre(np.asarray(gram, dtype=np.float64)))
    keep = values > values.max() * len(gram) * np.finfo(np.float64).eps
    return vectors[:, keep] * np.sqrt(values[keep])


def _factors(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = as_samples(x, "x"), as_samples(y, "y")
    same_samples(x, y)
    return factor(x, "x"), factor(y, "y")


def _basis(centred: np.ndarray, variance: float = 1.0, dims: int | None = None) -> np.ndarray:
    """Orthonormal (n, r) basis of the leading principal components."""
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    rank = int((s > s[0] * max(centred.shape) * np.finfo(np.float64).eps).sum())
    if dims is not None:
        if dims > rank:
            raise ValueError(f"dims={dims} components asked for, a representation has only {rank}")
        return u[:, :dims]
    share = np.cumsum(s[:rank] ** 2) / np.sum(s[:rank] ** 2)
    kept = min(rank, int(np.searchsorted(share, variance * (1 - 1e-12))) + 1)
    return u[:, :kept]


def _canonical(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Canonical variates of both sides, unit length, and their correlations, from orthonormal
    bases.
    """
    n = len(u)
    widest = max(u.shape[1], v.shape[1])
    if widest >= n - 1:
        raise ValueError(
            f"{widest} components over {n} samples: every canonical correlation is 1 whatever the "
            "data. "
            "Take more samples, keep fewer components (svcca: dims or variance), or use cka"
        )
    a, rho, bt = np.linalg.svd(u.T @ v, full_matrices=False)
    return u @ a, np.clip(rho, 0, 1), v @ bt.T

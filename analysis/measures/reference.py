"""How near generated pictures are to reference pictures, in features of both: kernel and Fréchet
distance, precision and recall.

Distances take their features from Inception where they are to be compared with published ones; the
formulas hold in any space. Kernel distance comes first: it has no bias at few pictures, and values
by picture, from which its interval for new prompts and seeds is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from xhat.analysis.measures.by_seed import pairs_by_seed

NEIGHBOURS = 3
ROWS = 1024


def kernel_distance_by_sample(generated: Any, reference: Any) -> np.ndarray:
    """(n,) values whose mean is the kernel (Inception) distance, unbiased, the reference held
    fixed.

    KID = E k(x, x′) − 2 E k(x, y) + E k(y, y′) over different pictures, with the cubic kernel
    k(a, b) = (a·b/d + 1)³ of d features; values are the jackknife's pseudo-values. KID is 0 in
    the mean for pictures of one distribution, and may be below by chance.

    Parameters
    ----------
    generated, reference
        (n, d), n ≥ 3, and (m, d), m ≥ 2.

    Raises
    ------
    ValueError
        For other shapes.

    References
    ----------
    Bińkowski et al. 2018, arXiv 1801.01401, Sec. 4 and eq. 4.
    """
    x, y = _features(generated, reference, 3, 2)
    cross = np.concatenate([_cubic(part, y).mean(1) for part in _parts(x)])
    total = sum(float(_cubic(part, y).sum()) for part in _parts(y))
    same = float(((np.square(y).sum(1) / y.shape[1] + 1) ** 3).sum())
    within = (total - same) / (len(y) * (len(y) - 1))
    return pairs_by_seed(_cubic(x, x)) - 2 * cross + within


def frechet_distance(generated: Any, reference: Any) -> float:
    """Fréchet (Inception) distance between the Gaussians of two sets of features.

    ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½), Σ with n − 1. With Σ = AAᵀ, tr (Σ₁Σ₂)^½ is the sum of the
    singular values of A₁ᵀA₂, so that no root of a matrix is taken. It is too large at few pictures,
    by more the more features there are: published values are of 10,000 to 50,000.

    Parameters
    ----------
    generated, reference
        (n, d) and (m, d), two or more pictures each.

    References
    ----------
    Heusel et al. 2017, arXiv 1706.08500, eq. 6; of its bias Chong & Forsyth 2020, arXiv 1911.07023.

    Examples
    --------
    >>> x = np.array([[-1.0], [1.0]])
    >>> round(frechet_distance(x, 3 * x + 1), 9)  # means 0 and 1, variances 2 and 18
    9.0
    """
    x, y = _features(generated, reference, 2, 2)
    a, b = _root(x), _root(y)
    means = np.square(x.mean(0) - y.mean(0)).sum()
    traces = np.square(a).sum() + np.square(b).sum()
    return float(means + traces - 2 * np.linalg.norm(a.T @ b, "nuc"))


def precision_by_sample(generated: Any, reference: Any, k: int = NEIGHBOURS) -> np.ndarray:
    """(n,) 1 for each generated picture that is among the reference pictures, else 0.

    A picture is among others if it is within the distance of one of them to its k-th nearest
    neighbour. The mean is precision; with the two sets exchanged it is recall. Source: Kynkäänniemi
    et al. 2019, arXiv 1904.06991, eq. 1 and 2, k = 3.

    Parameters
    ----------
    generated, reference
        (n, d) and (m, d), m > k.

    Examples
    --------
    >>> reference = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> precision_by_sample([[1.5], [9.0]], reference, k=1).tolist()
    [1.0, 0.0]
    """
    x, y = _features(generated, reference, 1, k + 1)
    # the nearest is the picture itself
    radii = np.concatenate([np.partition(cdist(part, y), k, 1)[:, k] for part in _parts(y)])
    return np.concatenate([(cdist(part, y) <= radii).any(1) for part in _parts(x)]).astype(float)


def recall(generated: Any, reference: Any, k: int = NEIGHBOURS) -> float:
    """Share of the reference pictures that are among the generated ones, as
    :func:`precision_by_sample` has it. It grows with the number of pictures generated.
    """
    return float(precision_by_sample(reference, generated, k).mean())


OVERALL: dict[str, Callable[[Any, Any], float]] = {"fid": frechet_distance, "recall": recall}
"""Numbers of all pictures of an arm together, without values by picture."""


def _cubic(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _root(x: np.ndarray) -> np.ndarray:
    """A (d, r) with AAᵀ the covariance of (n, d), r the smaller of n and d."""
    centred = (x - x.mean(0)) / np.sqrt(len(x) - 1)
    if len(x) <= x.shape[1]:
        return centred.T
    upper: Any = np.linalg.qr(centred, mode="r")
    return upper.T


def _parts(x: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(x), ROWS):
        yield x[start : start + ROWS]


def _features(
    generated: Any, reference: Any, least: int, least_reference: int
) -> tuple[np.ndarray, np.ndarray]:
    x, y = (np.asarray(values, dtype=np.float64) for values in (generated, reference))
    for name, values, fewest in (("generated", x, least), ("reference", y, least_reference)):
        if values.ndim != 2 or len(values) < fewest:
            raise ValueError(
                f"{name} features: expected (n, d) with n of {fewest} or more, got shape "
                f"{values.shape}"
            )
        if not np.isfinite(values).all():
            raise ValueError(f"{name} features hold NaN or infinite values")
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"features of two spaces: {x.shape[1]} of generated pictures, {y.shape[1]} of reference"
        )
    return x, y

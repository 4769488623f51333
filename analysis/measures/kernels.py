"""Measures that are one inner product: each representation becomes a unit vector over pairs of
samples.

CKA, RSA and mutual kNN differ only in the n × n matrix they compare. Seen so, a map of all pairs is
one matrix product, a permutation of samples is an index into the vectors, and leaving samples out
is a submatrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from xhat.analysis.measures.grams import as_samples, centred_gram, raw_gram, recentre, u_centre

METRICS = ("correlation", "sqeuclidean")
COMPARISONS = ("spearman", "pearson", "cosine")


@dataclass(frozen=True)
class Kernel:
    """A measure as an inner product of unit vectors.

    ``matrix(x, name)``: (n, p) samples to the n × n matrix that is kept; ``from_gram(K)``: the same
    from a Gram matrix, None where a Gram does not hold enough; ``entries(matrix)``: the n × n
    matrix whose entries are compared, made anew for every subset of samples; ``scale(vector)``:
    what is done to its entries."""

    matrix: Callable[..., np.ndarray]
    from_gram: Callable[[np.ndarray], np.ndarray] | None
    entries: Callable[[np.ndarray], np.ndarray]
    scale: Callable[[np.ndarray], np.ndarray] = lambda v: v
    diagonal: bool = False
    symmetric: bool = True
    least: int = 3  # samples below which the measure is not defined

    def pairs(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the pairs of samples that are compared."""
        if not self.symmetric:
            return tuple(np.nonzero(~np.eye(n, dtype=bool)))  # type: ignore[return-value]
        return np.triu_indices(n, 0 if self.diagonal else 1)

    def reordered(self, order: np.ndarray) -> np.ndarray:
        """Index into :meth:`vector` that gives the vector of the same samples in another order."""
        rows, columns = self.pairs(len(order))
        place = np.zeros((len(order), len(order)), dtype=np.intp)
        place[rows, columns] = np.arange(len(rows))
        if self.symmetric:
            place[columns, rows] = np.arange(len(rows))
        return place[order[rows], order[columns]]

    def vector(self, matrix: np.ndarray, name: str = "x") -> np.ndarray:
        """The unit vector that stands for a representation. Raises ValueError where it has no
        direction.
        """
        n = len(matrix)
        if n < self.least:
            raise ValueError(f"{name} has {n} samples, this measure needs at least {self.least}")
        entries = self.entries(matrix)[self.pairs(n)]
        largest = np.abs(entries).max()
        entries = self.scale(entries)
        norm = np.linalg.norm(entries)
        if not norm > 1e-12 * largest * np.sqrt(len(entries)):
            raise ValueError(
                f"{name} tells no pair of samples from another: no similarity is defined for it"
            )
        return entries / norm


def cka_kernel(kernel: str = "linear", debiased: bool = True, sigma: float | None = None) -> Kernel:
    """CKA as a :class:`Kernel`: U-centred entries if debiased, those of H·K·H if not."""
    if kernel not in ("linear", "rbf"):
        raise ValueError(f"kernel must be 'linear' or 'rbf', got {kernel!r}")
    if sigma is not None and (kernel == "linear" or not sigma > 0):
        raise ValueError(
            f"sigma is the width of the rbf kernel and positive: got sigma={sigma}, {kernel=}"
        )

    def entries(gram: np.ndarray) -> np.ndarray:
        k = rbf(gram, sigma) if kernel == "rbf" else gram
        return u_centre(k) if debiased else recentre(k)

    def halved(entries: np.ndarray) -> np.ndarray:
        """Each pair off the diagonal stands for two entries of the whole matrix."""
        n = int((np.sqrt(8 * len(entries) + 1) - 1) / 2)
        rows, columns = np.triu_indices(n)
        return entries * np.where(rows == columns, 1.0, 2**0.5)

    scale = (lambda v: v) if debiased else halved
    return Kernel(
        centred_gram, recentre, entries, scale, diagonal=not debiased, least=4 if debiased else 2
    )


def rsa_kernel(metric: str = "correlation", compare: str = "spearman") -> Kernel:
    """RSA as a :class:`Kernel`: dissimilarities, ranked for ``spearman``, less their mean but for
    ``cosine``.
    """
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {METRICS}, got {metric!r}")
    if compare not in COMPARISONS:
        raise ValueError(f"compare must be one of {COMPARISONS}, got {compare!r}")

    def scale(entries: np.ndarray) -> np.ndarray:
        entries = _ranks(entries) if compare == "spearman" else entries
        return entries if compare == "cosine" else entries - entries.mean()

    if metric == "correlation":
        return Kernel(correlation_distances, None, lambda rdm: rdm, scale)

    def distances(x: np.ndarray, name: str = "x") -> np.ndarray:
        return squared_distances(centred_gram(x, name))

    return Kernel(distances, squared_distances, lambda rdm: rdm, scale)


def knn_kernel(k: int = 10, centre: bool = True) -> Kernel:
    """Mutual kNN as a :class:`Kernel`: entry (i, j) is 1 where j is one of i's k nearest by
    cosine.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")

    def entries(gram: np.ndarray) -> np.ndarray:
        n = len(gram)
        if k >= n:
            raise ValueError(f"k={k} neighbours need more than {k} samples, got {n}")
        gram = recentre(gram) if centre else gram
        lengths = np.sqrt(np.clip(gram.diagonal(), 0, None))
        if not lengths.min() > 1e-12 * lengths.max():
            raise ValueError("a sample lies at the origin: it has no cosine neighbours")
        cosines = gram / np.outer(lengths, lengths)
        np.fill_diagonal(cosines, -np.inf)
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        adjacent = np.zeros((n, n))
        np.put_along_axis(adjacent, nearest, 1.0, axis=1)
        return adjacent

    if centre:
        return Kernel(centred_gram, recentre, entries, symmetric=False)
    return Kernel(raw_gram, lambda gram: gram, entries, symmetric=False)


def rbf(gram: np.ndarray, sigma: float | None = None) -> np.ndarray:
    """exp(−d²/2σ²), σ² the median of the squared distances between different samples unless
    given.
    """
    d2 = squared_distances(gram)
    variance = np.median(d2[np.triu_indices(len(d2), 1)]) if sigma is None else sigma**2
    if not variance > 0:
        raise ValueError("half of the samples are equal: the median distance is 0, give sigma")
    return np.exp(-d2 / (2 * variance))


def squared_distances(gram: np.ndarray) -> np.ndarray:
    """‖xᵢ − xⱼ‖² = Kᵢᵢ + Kⱼⱼ − 2Kᵢⱼ, exactly 0 on the diagonal."""
    d = gram.diagonal()
    d2 = np.clip(d[:, None] + d[None, :] - 2 * gram, 0, None)
    np.fill_diagonal(d2, 0)
    return d2


def _ranks(entries: np.ndarray) -> np.ndarray:
    """Ranks, ties sharing their mean. Distances out of a Gram carry rounding: closer than that
    counts as tied.
    """
    order = np.argsort(entries, kind="stable")
    steps = np.diff(entries[order], prepend=entries[order[0]]) > 1e-12 * np.abs(entries).max()
    groups = np.empty(len(entries), dtype=np.intp)
    groups[order] = np.cumsum(steps)
    return rankdata(groups)


def correlation_distances(x: np.ndarray, name: str = "x") -> np.ndarray:
    """1 − r(xᵢ, xⱼ) over features, for every pair of samples. Raises ValueError for a constant
    sample.
    """
    x = as_samples(x, name).astype(np.float64)
    if x.shape[1] < 2:
        raise ValueError(f"{name} has 1 feature: a correlation over features needs at least 2")
    if not np.isfinite(x).all():
        raise ValueError(f"{name} holds NaN or infinite values")
    if not np.ptp(x, axis=1).min() > 0:
        raise ValueError(
            f"a sample of {name} has one value in every feature: its correlation is not defined"
        )
    z = x - x.mean(1, keepdims=True)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    return 1 - z @ z.T

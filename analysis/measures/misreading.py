"""What a judge's mistakes do to the entropy of attributes: corrected where its confusion is known,
bounded where only its error rate is.

A judge that reads value j in pictures of value i with probability C[i, j] turns shares p into Cᵀp:
mistakes make a collapsed attribute look varied. How much they can hide is bounded by how many there
are."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import nnls

from xhat.analysis.measures.by_seed import LEAST_SEEDS


def confusion_matrix(true: Any, read: Any, n_values: int) -> np.ndarray:
    """(n_values, n_values) share of pictures of each true value that are read as each.

    Raises ValueError for labels of other lengths, and a value of which there is no picture.

    >>> confusion_matrix([0, 0, 1, 1], [0, 1, 1, 1], 2).tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """
    true, read = np.asarray(true), np.asarray(read)
    if true.shape != read.shape or true.ndim != 1:
        raise ValueError(f"expected two (n,) lists of labels, got {true.shape} and {read.shape}")
    counts = np.zeros((n_values, n_values))
    np.add.at(counts, (true, read), 1)
    if not counts.sum(1).all():
        missing = int(np.flatnonzero(counts.sum(1) == 0)[0])
        raise ValueError(f"no picture has the value {missing}: how it is read cannot be told")
    return counts / counts.sum(1, keepdims=True)


def corrected_shares(shares: Any, confusion: Any) -> np.ndarray:
    """(n_values,) true shares of values, from the shares that were read: the nonnegative least
    squares solution of Cᵀp = q, scaled to sum to 1.

    ``confusion``: of :func:`confusion_matrix`, on pictures like these. Raises ValueError for shapes
    that do not fit, and for a judge that cannot tell values apart.

    >>> corrected_shares([0.25, 0.75], [[0.5, 0.5], [0.0, 1.0]]).round(6).tolist()
    [0.5, 0.5]
    """
    q, c = np.asarray(shares, dtype=np.float64), np.asarray(confusion, dtype=np.float64)
    if c.shape != (len(q), len(q)):
        raise ValueError(f"{len(q)} shares need a confusion of as many values, got {c.shape}")
    if np.linalg.matrix_rank(c) < len(q):
        raise ValueError("this judge reads two values alike: their shares cannot be told apart")
    solution, _ = nnls(c.T, q)
    return solution / solution.sum()


def corrected_entropy_by_seed(labels: Any, confusion: Any) -> np.ndarray:
    """(n,) values by seed of the entropy of true shares over ln(n_values): jackknife pseudo-values
    of the entropy of :func:`corrected_shares`, whose mean has the bias of order 1/n taken off.

    ``labels`` (n,): as they were read; ``confusion``: of :func:`confusion_matrix`, on pictures like
    these. Raises ValueError for fewer than three labels.
    """
    read, c = np.asarray(labels), np.asarray(confusion, dtype=np.float64)
    n = len(read)
    if n < LEAST_SEEDS:
        raise ValueError(f"expected {LEAST_SEEDS} or more labels, got {n}")
    counts = np.bincount(read, minlength=len(c)).astype(np.float64)

    def entropy(of: np.ndarray) -> float:
        p = corrected_shares(of / of.sum(), c)
        p = p[p > 0]
        return float(-(p * np.log(p)).sum() / np.log(len(c)))

    one = np.eye(len(c))
    without = [entropy(counts - one[j]) if counts[j] else 0.0 for j in range(len(c))]
    return n * entropy(counts) - (n - 1) * np.array(without)[read]


def entropy_bound(error: Any, n_values: int) -> np.ndarray:
    """Most by which the entropy over ln(n_values) can be off where a share ``error`` is misread.

    (e·ln(n − 1) + h(e))/ln n for e ≤ 1 − 1/n, h the binary entropy; 1 above that. Shares that
    differ in e of the pictures have a total variation of at most e. Source: Zhang 2007,
    “Estimating mutual information via Kolmogorov distance”, IEEE Trans. Inf. Theory 53.

    >>> entropy_bound([0.0, 0.5], 2).tolist()
    [0.0, 1.0]
    """
    e = np.asarray(error, dtype=np.float64)
    if ((e < 0) | (e > 1)).any() or n_values < 2:
        raise ValueError(f"expected errors from 0 to 1 and two or more values, got {e}, {n_values}")
    inside = np.clip(e, 1e-300, 1 - 1e-16)
    binary = -inside * np.log(inside) - (1 - inside) * np.log1p(-inside)
    bound = (e * np.log(max(n_values - 1, 1)) + binary) / np.log(n_values)
    return np.where(e >= 1 - 1 / n_values, 1.0, np.where(e > 0, bound, 0.0))

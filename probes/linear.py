"""Linear probes: what can be read from a representation by a linear map, on samples that it was not
fitted to.

A probe is a linear discriminant: the class whose mean is nearest, by the covariance of all training
samples with Ledoit and Wolf's shrinkage (2004, doi:10.1016/S0047-259X(03)00096-4). Classes count
alike, however frequent. Nothing but the means depends on the labels: so all label sets that are
asked of the same features, controls and permutations too, are read by probes of one and the same
capacity, at the cost of one. Folds hold whole groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


def read_out(
    x: Any,
    labels: Sequence[Any] | np.ndarray,
    groups: Any,
    *,
    units: Any = None,
    folds: int = 5,
    seed: int = 0,
) -> np.ndarray:
    """Labels that linear probes read from ``x``, each sample by a probe that saw nothing of its
    group and its unit.

    argmax_k of μₖᵀS⁻¹x − ½·μₖᵀS⁻¹μₖ, on features standardised by the training part. ``x``: (n, d)
    or (n, …), flattened. ``labels``: (sets, n) of integers. ``groups``: (n,). ``units``: (n,), what
    comes back in every group, as a seed under every prompt: samples of one half of the units are
    read by probes of the other half; None: all train. Returns (sets, n). Raises ValueError for
    shapes that do not fit, values that are not finite, fewer than two groups, and a fold whose
    other groups and units never meet.

    >>> x = np.repeat(np.eye(3), 4, axis=0)
    >>> y = np.repeat([0, 1, 2], 4)
    >>> read_out(x, [y], np.tile([0, 1, 2, 3], 3))[0].tolist() == y.tolist()
    True
    """
    from sklearn.preprocessing import StandardScaler

    x, labels, groups = _checked(x, labels, groups)
    found = np.empty(labels.shape, dtype=labels.dtype)
    for train, test in _folds(groups, units, folds, seed):
        scaler = StandardScaler().fit(x[train])  # of the training part alone
        given, asked = _whitened(scaler.transform(x[train]), scaler.transform(x[test]))
        found[:, test] = _nearest(given, labels[:, train], asked)
    return found


def control_labels(labels: Any, units: Any, seed: int = 0) -> np.ndarray:
    """Labels of a control task: one drawn for each unit, by the frequencies of ``labels``, whatever
    the features are.

    A probe that does well on them reads which unit a sample is of. Across folds of prompts the unit
    is the seed: the same noise comes back under every prompt, and a label that goes with the noise
    needs no picture to be read. Folds that keep units apart too leave it at chance. Source: Hewitt
    & Liang 2019, arXiv 1909.03368, section 2. ``labels``, ``units``: (n,).

    >>> bool(np.ptp(control_labels([0, 1, 1, 0], ["a", "a", "b", "b"]).reshape(2, 2), axis=1).any())
    False
    """
    labels, (names, place) = np.asarray(labels), np.unique(np.asarray(units), return_inverse=True)
    return np.random.default_rng(seed).choice(labels, size=len(names))[place]


def scored(labels: np.ndarray, groups: np.ndarray, least: int = 5) -> np.ndarray:
    """The classes that a probe can be scored on: with ``least`` samples, and found in two groups or
    more.
    """
    return np.array(
        [
            k
            for k in np.unique(labels)
            if (labels == k).sum() >= least and len(np.unique(groups[labels == k])) > 1
        ],
        dtype=labels.dtype,
    )


def balanced_accuracy(labels: np.ndarray, read: np.ndarray, classes: np.ndarray) -> float:
    """Mean over ``classes`` of the share of its samples that were read right; NaN where a class has
    none left.

    Chance is 1/(number of classes), however unequal they are.

    >>> balanced_accuracy(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]), np.array([0, 1]))
    0.5
    """
    there = [labels == k for k in classes]
    return float(
        np.mean([(read[rows] == labels[rows]).mean() if rows.any() else np.nan for rows in there])
    )


def _whitened(given: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """S^(−1/2) of both, S the shrunken covariance of ``given``, in the space that its samples
    span.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    if given.shape[1] > len(given):  # centred samples span one dimension less than there are
        _, size, axes = np.linalg.svd(given, full_matrices=False)
        variance, axes = size[:-1] ** 2 / len(given), axes[:-1].T
    else:  # several times as fast
        variance, axes = np.linalg.eigh(given.T @ given / len(given))
    given, asked = given @ axes, asked @ axes
    share = ledoit_wolf_shrinkage(given, assume_centered=True)
    shrunken = (1 - share) * variance + share * variance.mean()
    scale = np.divide(1, np.sqrt(shrunken), out=np.zeros_like(shrunken), where=shrunken > 0)
    return given * scale, asked * scale


def _nearest(x: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The class of the nearest mean, (sets, m), for each sample asked for and each set of labels
    (sets, n).
    """
    classes = np.unique(labels)
    members = labels[:, None] == classes[:, None]  # (sets, classes, n)
    counts = members.sum(2)
    means = members.reshape(-1, len(x)).astype(x.dtype) @ x / np.maximum(counts, 1).reshape(-1, 1)
    score = (asked @ means.T - (means * means).sum(1) / 2).reshape(len(asked), *counts.shape)
    return classes[np.where(counts > 0, score, -np.inf).argmax(2)].T


def _folds(
    groups: np.ndarray, units: Any, folds: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(train, test): groups in ``folds`` parts, crossed with the halves of the units."""
    from sklearn.model_selection import GroupKFold

    def parts(of: np.ndarray, count: int) -> list[np.ndarray]:
        split = GroupKFold(min(count, len(np.unique(of))), shuffle=True, random_state=seed)
        return [test for _, test in split.split(of, groups=of)]

    everyone = np.arange(len(groups))
    halves = (
        [everyone] if units is None or len(np.unique(units)) < 2 else parts(np.asarray(units), 2)
    )
    for part in parts(groups, folds):
        for half in halves:
            test = np.intersect1d(part, half)
            others = [half] if len(halves) > 1 else []
            train = np.setdiff1d(everyone, np.concatenate([part, *others]))
            if not len(train):
                raise ValueError(
                    "no sample is of other groups and other units than those of a fold: leave out "
                    "`units`"
                )
            if len(test):
                yield train, test


def _checked(x: Any, labels: Any, groups: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, labels, groups = np.asarray(x, dtype=np.float64), np.asarray(labels), np.asarray(groups)
    if x.ndim < 2 or labels.ndim != 2 or labels.shape[1] != len(x) or groups.shape != (len(x),):
        raise ValueError(
            f"expected x (n, d), labels (sets, n) and groups (n,); got {x.shape}, {labels.shape} "
            f"and {groups.shape}"
        )
    if len(np.unique(groups)) < 2:
        raise ValueError(
            "a probe is tested on groups that it was not fitted to: expected two or more, got one"
        )
    x = x.reshape(len(x), -1)
    if not np.isfinite(x).all():
        raise ValueError("the features hold NaN or infinite values")
    return x, labels, groups

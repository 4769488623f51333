"""Similarity of two representations of the same samples.

Every function takes ``(n_samples, n_features)`` arrays, torch or numpy, whose rows are the same
samples in the same order; the numbers of features may differ. Arithmetic is float64 unless a dtype
is given. Shapes that do not fit, too few samples, NaN or infinite values, and a representation that
is the same for every sample raise ValueError: none of these measures is defined there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from xhat.analysis.measures.cca import procrustes, pwcca, svcca
from xhat.analysis.measures.grams import (
    Array,
    as_samples,
    astype,
    centre,
    centred_gram,
    same_samples,
    strip_index,
    triangle,
    u_centre,
)
from xhat.analysis.measures.kernels import Kernel, cka_kernel, knn_kernel, rsa_kernel

__all__ = [
    "cka",
    "cka_matrix",
    "minibatch_cka",
    "mutual_knn",
    "procrustes",
    "pwcca",
    "rsa",
    "svcca",
]


def cka(
    x: Any,
    y: Any,
    *,
    kernel: str = "linear",
    debiased: bool = True,
    sigma: float | None = None,
) -> float:
    """Centred kernel alignment; 1 where the two are equal up to rotation and scale.

    Debiased: HSIC₁(K, L) / √(HSIC₁(K, K)·HSIC₁(L, L)), about 0 for independent data and never
    clamped: it may be negative. Biased: ⟨HKH, HLH⟩ / (‖HKH‖·‖HLH‖), which grows with features over
    samples.

    Parameters
    ----------
    x, y
        Representations of the same n samples, (n, p) and (n, q); arrays or tensors.
    kernel
        ``"linear"``, or ``"rbf"``: exp(−d²/2σ²).
    debiased
        Whether the U-statistics are used.
    sigma
        σ of ``rbf``; None: σ² is each representation's own median squared distance between
        different samples.

    Returns
    -------
    float
        At most 1.

    Raises
    ------
    ValueError
        For other numbers of samples, NaN, constant features, and n ≤ 3 where debiased.

    References
    ----------
    Kornblith et al. 2019, arXiv:1905.00414, eq. 3; Song et al. 2012, JMLR 13, eq. 5.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(50, 4))
    >>> round(cka(x, 3 * x[:, ::-1] + 7), 6)
    1.0
    """
    if kernel == "linear" and sigma is None:
        return float(cka_matrix([x], [y], debiased=debiased)[0, 0])
    return _inner(cka_kernel(kernel, debiased, sigma), x, y)


def cka_matrix(
    xs: Sequence[Any],
    ys: Sequence[Any] | None = None,
    *,
    debiased: bool = True,
    dtype: str = "float64",
    memory: int = 2**31,
) -> np.ndarray:
    """Linear CKA of every x with every y.

    The numbers of :func:`cka`, from one matrix product: each representation's centred Gram is made
    once, and what is compared of it, a triangle of n² / 2 numbers, is kept as a vector.

    Parameters
    ----------
    xs, ys
        Representations of the same n samples; with ``ys=None``, every x with every other x. Entries
        may be lazy (a Zarr or dask array, an ``xarray.DataArray``): one is in memory at a time.
        Tensors on a device stay there.
    debiased
        As in :func:`cka`.
    dtype
        ``"float64"``; ``"float32"`` halves time and memory, with errors of about 1e-6.
    memory
        Bytes. Where the triangles of all would need more, they go through in strips of rows, and
        ``xs`` and ``ys`` are read once a strip.

    Returns
    -------
    ndarray
        (len(xs), len(ys)), float64.

    Raises
    ------
    ValueError
        As :func:`cka` does.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(3, 20, 5))
    >>> bool(np.isclose(cka_matrix(x)[0, 2], cka(x[0], x[2])))
    True
    """
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be 'float64' or 'float32', got {dtype!r}")
    groups = [("xs", xs)] if ys is None else [("xs", xs), ("ys", ys)]
    if any(len(group) == 0 for _, group in groups):
        raise ValueError("xs and ys must hold at least one representation each")
    least = 4 if debiased else 2
    n = as_samples(xs[0], "xs[0]", least, host=False).shape[0]
    itemsize = np.dtype(dtype).itemsize
    total = np.zeros(tuple(len(group) for _, group in (groups[0], groups[-1])))
    norms = [np.zeros(len(group)) for _, group in groups]
    for start, stop in _strips(n, sum(len(group) for _, group in groups) * itemsize, memory):
        packed = [
            _packed(group, label, n, (start, stop), debiased, dtype, least)
            for label, group in groups
        ]
        product = _host(packed[0] @ packed[-1].T)
        total += product
        if ys is None:
            norms[0] += product.diagonal()
        else:
            for norm, vectors in zip(norms, packed, strict=True):
                norm += _host((vectors * vectors).sum(1))
    for (label, _), norm in zip(groups, norms, strict=True):
        _refuse_flat(label, norm, dtype)
    return total / np.sqrt(np.outer(norms[0], norms[-1]))


def minibatch_cka(batches: Iterable[tuple[Any, Any]]) -> float:
    """Debiased linear CKA from batches of samples: the three HSIC₁ are summed, then their ratio.

    Σ HSIC₁(K, L) / √(Σ HSIC₁(K, K) · Σ HSIC₁(L, L)). Unbiased in each HSIC₁ at any batch size above
    3; one batch is :func:`cka`.

    Parameters
    ----------
    batches
        Pairs (x, y) of the same samples, more than three of them in each.

    Returns
    -------
    float
        At most 1.

    Raises
    ------
    ValueError
        For a batch of three samples or fewer, and as :func:`cka` does.

    References
    ----------
    Nguyen et al. 2021, arXiv:2010.15327, eq. 2-4.
    """
    sums = np.zeros(3)
    for b, (x, y) in enumerate(batches):
        x, y = as_samples(x, f"x of batch {b}", 4), as_samples(y, f"y of batch {b}", 4)
        same_samples(x, y)
        n = len(x)
        k, l = (
            u_centre(centred_gram(x, f"x of batch {b}")),
            u_centre(centred_gram(y, f"y of batch {b}")),
        )
        sums += np.array([np.vdot(k, l), np.vdot(k, k), np.vdot(l, l)]) / (n * (n - 3))
    if not sums[1] * sums[2] > 0:
        raise ValueError("no batch tells one pair of samples from another: CKA is not defined")
    return float(sums[0] / np.sqrt(sums[1] * sums[2]))


def rsa(x: Any, y: Any, *, metric: str = "correlation", compare: str = "spearman") -> float:
    """Representational similarity analysis: how alike the dissimilarities between samples are.

    Parameters
    ----------
    x, y
        Representations of the same n samples, (n, p) and (n, q); arrays or tensors.
    metric
        Dissimilarity over pairs i < j: ``"correlation"``, 1 − r(xᵢ, xⱼ) over features, or
        ``"sqeuclidean"``, ‖xᵢ − xⱼ‖².
    compare
        ``"spearman"`` (ties share their mean rank), ``"pearson"`` or ``"cosine"``.

    Returns
    -------
    float
        −1 to 1.

    References
    ----------
    Kriegeskorte et al. 2008, doi:10.3389/neuro.06.004.2008.
    """
    return _inner(rsa_kernel(metric, compare), x, y)


def mutual_knn(x: Any, y: Any, *, k: int = 10, centre: bool = True) -> float:
    """Share of each sample's k nearest neighbours that the two representations agree on, averaged.

    Neighbours by cosine, the sample itself left out; of equally near ones the earlier counts as
    nearer. Expected by chance: k / (n − 1).

    Parameters
    ----------
    x, y
        Representations of the same n samples, (n, p) and (n, q); arrays or tensors.
    k
        Neighbours.
    centre
        Whether features are centred; False is the measure of the paper.

    Returns
    -------
    float
        0 to 1.

    Raises
    ------
    ValueError
        Unless n > k.

    References
    ----------
    Huh et al. 2024, arXiv:2405.07987, appendix A.
    """
    return _inner(knn_kernel(k, centre), x, y)


def _inner(kernel: Kernel, x: Any, y: Any) -> float:
    x, y = as_samples(x, "x"), as_samples(y, "y")
    same_samples(x, y)
    u, v = (kernel.vector(kernel.matrix(a, name), name) for a, name in ((x, "x"), (y, "y")))
    return float(u @ v)


def _strips(n: int, bytes_each: int, memory: int) -> list[tuple[int, int]]:
    """Ranges of rows whose part of the triangle stays under ``memory`` bytes; one row at least."""
    strips, start = [], 0
    while start < n:
        stop, entries = start + 1, n - start
        while stop < n and (entries + n - stop) * bytes_each <= memory:
            entries += n - stop
            stop += 1
        strips.append((start, stop))
        start = stop
    return strips


def _packed(
    group: Sequence[Any],
    label: str,
    n: int,
    rows: tuple[int, int],
    debiased: bool,
    dtype: str,
    least: int,
) -> Array:
    """(len(group), entries) vectors: the rows ``rows`` of every representation's triangle."""
    packed: Array = None
    for m in range(len(group)):
        name = f"{label}[{m}]"
        x = as_samples(group[m], name, least, host=False)
        if x.shape[0] != n:
            raise ValueError(
                f"{name} has {x.shape[0]} samples, xs[0] has {n}: all must represent the same ones"
            )
        y = _of_moderate_size(centre(x, name, dtype))
        if packed is None:
            index = strip_index(n, *rows, not debiased, y)
            empty = (
                y.new_empty if isinstance(y, torch.Tensor) else lambda s, d=y.dtype: np.empty(s, d)
            )
            packed = empty((len(group), len(index)))
        packed[m] = triangle(y, *rows, debiased, index)
        packed[m] /= float(_sum_of_squares(y))  # a Gram of unit trace
    return packed


def _of_moderate_size(y: Array) -> Array:
    """Features whose squares neither over- nor underflow: as they are, or over the largest."""
    largest = max(float(y.max()), -float(y.min()))
    if not 1e-9 < largest < 1e9:
        y /= largest
    return y


def _sum_of_squares(y: Array) -> float:
    flat = y.reshape(-1)
    return flat @ flat


def _refuse_flat(label: str, norm: np.ndarray, dtype: str) -> None:
    """Raises ValueError for a Gram of unit trace whose entries off the diagonal are rounding
    alone.
    """
    for m in np.flatnonzero(~(norm > (100 * np.finfo(dtype).eps) ** 2)):
        raise ValueError(
            f"{label}[{m}] tells no pair of samples from another, all are equally far apart: CKA "
            "is not defined"
        )


def _host(x: Array) -> np.ndarray:
    return np.asarray(
        astype(x, "float64").cpu() if isinstance(x, torch.Tensor) else x, dtype=np.float64
    )

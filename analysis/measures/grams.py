"""Gram matrices, exactly centred: what a similarity of representations is made of.

The arithmetic is written for numpy arrays and for torch tensors on a device alike. On a CPU numpy
is the faster of the two: ``y @ y.T`` reaches BLAS's symmetric product there, which does half the
work."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

Array = Any  # np.ndarray, or a torch.Tensor on a device


def as_samples(x: Any, name: str = "x", least: int = 2, host: bool = True) -> Array:
    """``x`` as an (n_samples, n_features) floating array: numpy, or torch on its device unless
    ``host``.

    Raises ValueError where ``x`` has another number of axes, no feature, or fewer than ``least``
    samples."""
    if isinstance(x, torch.Tensor):
        x = x.detach()
        x = (
            x.float()
            if x.dtype in (torch.float16, torch.bfloat16) or not x.is_floating_point()
            else x
        )
        array = x.cpu().numpy() if host or x.device.type == "cpu" else x
    else:
        array = np.asarray(x)
        if array.dtype.kind not in "fiub":
            raise ValueError(f"{name} must hold real numbers, got dtype {array.dtype}")
        array = array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"{name} must be (n_samples, n_features), got shape {tuple(array.shape)}")
    if array.shape[0] < least:
        raise ValueError(f"{name} has {array.shape[0]} samples, at least {least} are needed")
    return array


def same_samples(x: Array, y: Array) -> None:
    """Raises ValueError unless the two have equally many samples."""
    if x.shape[0] != y.shape[0]:
        raise ValueError(
            f"x has {x.shape[0]} samples and y has {y.shape[0]}: both must represent the same "
            "samples, row by row"
        )


def astype(x: Array, dtype: str) -> Array:
    """``x`` in another floating dtype, given by name."""
    return (
        x.to(getattr(torch, dtype)) if isinstance(x, torch.Tensor) else x.astype(dtype, copy=False)
    )


def centre(x: Array, name: str = "x", dtype: str = "float64") -> Array:
    """Features less their means over samples, as a new array; nothing is lost to a large common
    offset.

    The first sample is taken off before the mean: a difference of two floats is rounded relative to
    itself, so an offset of any size is gone before anything is summed, in float32 too. Raises
    ValueError for NaN or infinite values, and where every sample is the same."""
    shifted = _from_first(x, dtype)
    shifted -= shifted.mean(0)
    largest, smallest = float(shifted.max()), float(shifted.min())
    if not (np.isfinite(largest) and np.isfinite(smallest)):
        raise ValueError(f"{name} holds NaN or infinite values")
    if largest == smallest == 0:
        raise ValueError(f"{name} is the same for every sample: no similarity is defined for it")
    return shifted


def _from_first(x: Array, dtype: str) -> Array:
    """x − x[0] in ``dtype``: widened before the difference, or narrowed after it."""
    if isinstance(x, np.ndarray) and dtype == "float64":
        return np.subtract(x, x[:1], dtype=np.float64)  # in one pass
    x = astype(x, dtype) if dtype == "float64" else x
    return astype(x - x[:1], dtype)


def centred_gram(x: Any, name: str = "x") -> np.ndarray:
    """(n, n) float64 Gram matrix of centred features."""
    y = centre(as_samples(x, name), name)
    return y @ y.T


def raw_gram(x: Any, name: str = "x") -> np.ndarray:
    """(n, n) float64 Gram matrix of the features as they are. Raises ValueError for NaN or infinite
    values.
    """
    y = as_samples(x, name).astype(np.float64)
    if not np.isfinite(y).all():
        raise ValueError(f"{name} holds NaN or infinite values")
    return y @ y.T


def recentre(gram: Array) -> Array:
    """H·K·H with H = I − 11ᵀ/n: the Gram of features centred over the samples that are left in
    it.
    """
    rows = gram.mean(0)
    return gram - rows[None, :] - rows[:, None] + rows.mean()


def u_centre(gram: Array) -> Array:
    """U-centred matrix K̃: zero diagonal, zero row sums, so that ⟨K̃, L̃⟩ = n(n−3)·HSIC₁(K, L).

    K̃ᵢⱼ = Kᵢⱼ − (rᵢ + rⱼ)/(n−2) + s/((n−1)(n−2)) for i ≠ j, with r the row sums and s the sum of K
    without its diagonal. Source: Székely & Rizzo 2014, eq. 2.4; equal to Song et al. 2012, eq. 5.
    """
    n = len(gram)
    off = gram - _diagonal(gram.diagonal())
    rows = off.sum(0)
    off = off - (rows[None, :] + rows[:, None]) / (n - 2) + rows.sum() / ((n - 1) * (n - 2))
    return off - _diagonal(off.diagonal())


def triangle(y: Array, start: int, stop: int, debiased: bool, index: Array) -> Array:
    """Rows ``start:stop`` of the triangle of y's Gram, U-centred if ``debiased``: a flat vector.

    For centred ``y`` the row sums without diagonal are −dᵢ, with dᵢ = ‖yᵢ‖², so that U-centring
    needs no second pass: K̃ᵢⱼ = Kᵢⱼ + (dᵢ + dⱼ)/(n−2) − Σd/((n−1)(n−2)). ``index`` is that of
    :func:`strip_index`."""
    n = len(y)
    block = y[start:stop] @ y[start:].T
    if debiased:
        squares = block.diagonal() if len(block) == n else (y * y).sum(1)
        d = squares / (n - 2)
        block += d[start:stop, None]
        block += (d - d.sum() / (n - 1))[None, start:]
    else:  # each pair off the diagonal stands for two entries of the whole matrix
        block *= 2**0.5
        corner = block[:, : stop - start]
        corner -= _diagonal(corner.diagonal() * (1 - 0.5**0.5))
    return block.reshape(-1)[index]


def strip_index(n: int, start: int, stop: int, diagonal: bool, like: Array) -> Array:
    """Flat positions of the upper triangle in a block of rows ``start:stop`` and columns
    ``start:n``.
    """
    keep = np.triu(np.ones((stop - start, n - start), dtype=bool), 0 if diagonal else 1)
    index = np.flatnonzero(keep)
    return torch.from_numpy(index).to(like.device) if isinstance(like, torch.Tensor) else index


def _diagonal(values: Array) -> Array:
    return torch.diag(values) if isinstance(values, torch.Tensor) else np.diag(values)

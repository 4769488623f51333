"""The representations in a trace, layer by layer and step by step, and the measures that compare
them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.measures.cca import factor, factor_of_gram, procrustes_of, svcca_of
from xhat.analysis.measures.grams import recentre
from xhat.analysis.measures.kernels import Kernel, cka_kernel, knn_kernel, rsa_kernel

X_T = "x_t"
Representation = (
    np.ndarray
)  # (n, n) of a kernel, or the (n, r) factor that an aligning measure works on
Steps = list[
    list[Representation | None]
]  # [step][layer]; None where a layer does not tell samples apart, or was not read


class NoSharedLevel(ValueError):
    """Two models have no noise level in common at which they could be compared."""


class TooFewSamples(ValueError):
    """A measure needs more samples than there are."""


@dataclass(frozen=True)
class SimilarityMeasure:
    """What a map needs of a measure.

    ``represent(x, name)`` and ``from_gram(K)`` make what is kept; ``subset(r, index)``: the same of
    other samples; ``prepared(r, name)``: what ``compare(lists, lists) → (a, b)`` takes;
    ``reordered(order)``: the index into it that stands for the samples in another order.
    ``larger``: more alike is a larger number."""

    represent: Callable[..., Representation]
    from_gram: Callable[[np.ndarray], Representation] | None
    subset: Callable[[Representation, np.ndarray], Representation]
    prepared: Callable[[Representation, str], np.ndarray]
    compare: Callable[[list[np.ndarray], list[np.ndarray]], np.ndarray]
    reordered: Callable[[np.ndarray], np.ndarray] = lambda order: order
    larger: bool = True
    least: int = 4


def measure_of(name: str, **options: Any) -> SimilarityMeasure:
    """The measure of a name: cka, rsa, mutual_knn, svcca or procrustes, with the options of that
    function.
    """
    if name in _KERNELS:
        return _of_kernel(
            _KERNELS[name](**options), options.get("k", 10) + 1 if name == "mutual_knn" else 4
        )
    if name in _ALIGNED:
        pairwise = _ALIGNED[name]

        def compare(a: list[np.ndarray], b: list[np.ndarray]) -> np.ndarray:
            return np.array([[pairwise(x, y, **options) for y in b] for x in a])

        return SimilarityMeasure(
            factor,
            factor_of_gram,
            lambda f, i: f[i],
            lambda f, _: f,
            compare,
            larger=name != "procrustes",
        )
    raise ValueError(f"measure must be one of {[*_KERNELS, *_ALIGNED]}, got {name!r}")


_KERNELS: dict[str, Callable[..., Kernel]] = {
    "cka": cka_kernel,
    "rsa": rsa_kernel,
    "mutual_knn": knn_kernel,
}
_ALIGNED: dict[str, Callable[..., float]] = {"svcca": svcca_of, "procrustes": procrustes_of}


def _of_kernel(kernel: Kernel, least: int) -> SimilarityMeasure:
    return SimilarityMeasure(
        kernel.matrix,
        kernel.from_gram,
        lambda matrix, index: matrix[np.ix_(index, index)],
        kernel.vector,
        lambda a, b: np.stack(a) @ np.stack(b).T,
        kernel.reordered,
        least=max(least, kernel.least),
    )


@dataclass(frozen=True)
class Layers:
    """All representations of a trace of n = prompts × seeds samples, prompts first."""

    names: list[str]
    steps: Steps


def layers_of(
    trace: Any,
    measure: SimilarityMeasure,
    prompts: np.ndarray,
    seeds: np.ndarray,
    branch: str,
    label: str,
    wanted: set[int],
) -> Layers:
    """Every activation of a trace, then ``x_t``, at the ``wanted`` steps, samples in the order
    ``prompts`` × ``seeds``.

    Other steps are not read, and one layer and step is in memory at a time. Raises ValueError where
    there are no activations, the trace lacks a prompt or seed, values are NaN in part, or a Gram
    does not hold what the measure needs."""
    if "activations" not in trace.children:
        raise ValueError(f"{label} holds no activations: name points to read in trace(…, hooks=…)")
    rows, columns = (
        _positions(trace[dim].values, wanted, f"{label}, {dim}s")
        for dim, wanted in (("prompt", prompts), ("seed", seeds))
    )
    values = {name: node["value"] for name, node in trace["activations"].children.items()}
    values[X_T] = trace["latents"]
    chosen = {name: _branch(array, branch, f"{label}, {name}") for name, array in values.items()}
    n_seeds = trace.sizes["seed"]
    steps: Steps = [
        [
            _read(a.isel(step=s), measure, rows, columns, n_seeds, f"{label}, {name}, step {s}")
            if s in wanted
            else None
            for name, a in chosen.items()
        ]
        for s in range(trace.sizes["step"])
    ]
    return Layers(list(chosen), steps)


def _positions(have: np.ndarray, wanted: np.ndarray, label: str) -> np.ndarray:
    place = {value: i for i, value in enumerate(have.tolist())}
    if len(have) != len(wanted) or set(place) != set(wanted.tolist()):
        raise ValueError(
            f"the traces must hold the same prompts and seeds: {label} are {have.tolist()}, not "
            f"{wanted.tolist()}"
        )
    return (
        np.arange(len(have))
        if np.array_equal(have, wanted)
        else np.array([place[v] for v in wanted.tolist()])
    )


def _branch(value: xr.DataArray, branch: str, label: str) -> xr.DataArray:
    """The half of a guided evaluation that is compared; a point without guidance has only one."""
    if "branch" not in value.dims:
        return value
    have = value["branch"].values.tolist()
    if branch not in have:
        raise ValueError(f"{label} has branches {have}, none is {branch!r}")
    return value.isel(branch=have.index(branch))


def _read(
    value: xr.DataArray,
    measure: SimilarityMeasure,
    rows: np.ndarray,
    columns: np.ndarray,
    n_seeds: int,
    label: str,
) -> Representation | None:
    if "sample_other" in value.dims:
        if measure.from_gram is None:
            raise ValueError(
                f"{label} was kept as a Gram matrix, which does not hold what this measure needs"
            )
        index = (rows[:, None] * n_seeds + columns).reshape(-1)
        x = np.asarray(value.transpose("sample", "sample_other").values, dtype=np.float64)[
            np.ix_(index, index)
        ]
        spread = recentre(x)
    else:
        x = np.asarray(value.transpose("prompt", "seed", ...).values)[np.ix_(rows, columns)]
        x = x.reshape(len(rows) * len(columns), -1)
        spread = x - x[:1]
    if np.isnan(x).all():  # not read at this step: another segment's network, say
        return None
    if not np.isfinite(x).all():
        raise ValueError(f"{label} holds NaN or infinite values")
    if (
        not np.abs(spread).max() > 1e-12 * np.abs(x).max()
    ):  # the same for every sample, such as the time embedding
        return None
    return measure.represent(x, label) if "sample_other" not in value.dims else measure.from_gram(x)  # type: ignore[misc]

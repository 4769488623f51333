"""How many different pictures there are: of one set of samples, and of x̂₀ across seeds at every
noise level.

Diversity is counted within a prompt, over its seeds, then averaged over prompts. Arms are compared
at equal numbers of seeds, prompt by prompt: every one of these measures moves with the number of
samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from scipy.spatial.distance import cdist, pdist

from xhat.analysis import stats
from xhat.analysis.measures.grams import as_samples, raw_gram
from xhat.analysis.measures.kernels import rbf
from xhat.probes.features import FeatureSpace, feature_space

Features = Callable[[np.ndarray], np.ndarray]
Labels = Callable[[np.ndarray, str], Mapping[str, tuple[np.ndarray, int]]]
Fidelity = Callable[[np.ndarray, str], np.ndarray]

KERNELS, DISTANCES = ("cosine", "rbf"), ("cosine", "euclidean")


def vendi(x: Any, *, q: float = 1, kernel: str = "cosine", sigma: float | None = None) -> float:
    """Effective number of different samples: 1 where all are alike, n where all n are orthogonal.

    exp of the Rényi entropy of order q of the eigenvalues λ of K/n: (Σ λ^q)^(1/(1−q)), exp(−Σ λ ln
    λ) at q = 1, 1/max λ at q = ∞. A larger q looks at common modes and settles with fewer samples;
    q = 2 is n²/‖K‖², without eigenvalues. ``kernel``: ``cosine``, features as they are, or ``rbf``,
    exp(−d²/2σ²) with ``sigma`` the same for every set that is compared. ``x``: (n, d). Raises
    ValueError for shapes that do not fit, NaN, a sample of length zero under ``cosine``, and q ≤ 0.
    Source: Friedman & Dieng 2023, arXiv:2210.02410, definition 3.1; Pasarkar & Dieng 2024,
    arXiv:2310.12952, eq. 2.

    >>> round(vendi(np.eye(5)), 6), round(vendi(np.ones((5, 3)), q=2), 6)
    (5.0, 1.0)
    """
    if not q > 0:
        raise ValueError(
            f"q, the order of the entropy, must be above 0 (1, 2, …, or float('inf')), got {q}"
        )
    k = _similarities(x, kernel, sigma)
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
    """Mean over unordered pairs of different samples of 1 − cos(xᵢ, xⱼ), or of ‖xᵢ − xⱼ‖ for
    ``euclidean``.

    One outlier moves it: read it beside :func:`vendi`. ``x``: (n, d), n ≥ 2. Raises ValueError for
    shapes that do not fit, NaN, and a sample of length zero under ``cosine``.

    >>> mean_pairwise_distance(np.eye(4)), mean_pairwise_distance([[0.0, 0], [3, 4]], metric="euclidean")
    (1.0, 5.0)
    """
    if metric not in DISTANCES:
        raise ValueError(f"metric must be one of {DISTANCES}, got {metric!r}")
    x = _finite(x, "x", 2)
    if metric == "euclidean":
        return float(pdist(x).mean())
    k = _similarities(x, "cosine", None)
    return float(1 - k[np.triu_indices(len(k), 1)].mean())


def prdc(real: Any, fake: Any, *, k: int = 5) -> dict[str, float]:
    """Precision, recall, density and coverage of ``fake`` (m, d) against ``real`` (n, d) samples.

    With balls reaching to each sample's k-th neighbour of its own kind, itself left out, and
    strictly inside them: precision, share of fakes in any real ball; recall, share of reals in any
    fake ball; density, real balls that a fake is in, over k, averaged (above 1 where fakes crowd);
    coverage, share of real balls that hold a fake. Raises ValueError for shapes that do not fit,
    NaN, and k not below both numbers of samples. Source: Kynkäänniemi et al. 2019,
    arXiv:1904.06991; Naeem et al. 2020, arXiv:2002.09797, eq. 1-6."""
    real, fake = _finite(real, "real", 2), _finite(fake, "fake", 2)
    if real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"real has {real.shape[1]} features and fake {fake.shape[1]}: both must be in one space"
        )
    if not 1 <= k < min(len(real), len(fake)):
        raise ValueError(
            f"k must be at least 1 and below both sample numbers, {len(real)} and {len(fake)}: got {k}"
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


def diversity_by_noise(
    trace: Any,
    *,
    features: Features | FeatureSpace | str | None = None,
    labels: Labels | None = None,
    pipe: Any = None,
    level: float = stats.LEVEL,
    resamples: int = stats.RESAMPLES,
    seed: int = 0,
) -> xr.Dataset:
    """Diversity of x̂₀ across seeds, of every prompt at every step, with its mean over prompts.

    Variables (prompt, step): ``vendi_q2``, ``vendi_q1``, ``mean_pairwise_distance`` (all by
    cosine), ``rms`` of the latents, and ``attribute_entropy`` where ``labels`` is given; of each
    ``<name>_mean``, ``<name>_low`` and ``<name>_high`` (step), a bootstrap over prompts that draws
    the same prompts at all steps. Coordinates of the trace along ``step`` stay. ``features``:
    latents (n, c, h, w) float32 → (n, d), a feature space, or its name, with the ``pipe`` that made
    the trace (:func:`xhat.probes.features.feature_space`); left out, the latents themselves, whose
    scale the cosine does not see. ``labels``: (latents, prompt) → {attribute: ((n,) labels,
    n_values)} of what the prompt leaves open; entropy is averaged over these; a space that reads
    attributes brings its own. Raises ValueError without ``pred_x0`` or with one seed."""
    how, labels, said = _space(features, labels, pipe)
    found = _measured(_variable(trace, "pred_x0", "step"), how, labels)
    return _summarised(found, said, level=level, resamples=resamples, seed=seed)


def final_diversity(
    trace: Any,
    *,
    features: Features | FeatureSpace | str | None = None,
    labels: Labels | None = None,
    fidelity: Fidelity | None = None,
    pipe: Any = None,
    level: float = stats.LEVEL,
    resamples: int = stats.RESAMPLES,
    seed: int = 0,
) -> xr.Dataset:
    """:func:`diversity_by_noise` of the final latents: variables (prompt,), and scalars for means
    and bounds.

    ``fidelity(latents, prompt)`` → (n,) adds its mean over seeds under that name.
    """
    how, labels, said = _space(features, labels, pipe)
    found = _measured(_variable(trace, "final"), how, labels, fidelity)
    return _summarised(found, said, level=level, resamples=resamples, seed=seed)


def paired_difference(a: xr.DataArray, b: xr.DataArray, **options: Any) -> xr.Dataset:
    """Mean over prompts of b − a, ``mean``, ``low`` and ``high``, with the same prompts drawn in
    both.

    ``a``, ``b``: one variable of two arms, with a ``prompt`` dimension; options of
    :func:`stats.bootstrap_mean`. Raises ValueError for other prompts, other shapes, or other
    numbers of seeds behind the two."""
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
            f"diversity grows with the number of seeds: a has {n[0]}, b has {n[1]}; take equally many"
        )
    interval = stats.paired_difference(a.values, b.values, **options)
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


def _variable(trace: Any, name: str, *more: str) -> xr.DataArray:
    """A variable of a trace as (prompt, *more, seed, …)."""
    if name not in trace:
        raise ValueError(f"this trace has no variable {name!r}: it has {sorted(trace.data_vars)}")
    array: xr.DataArray = trace[name]
    if missing := {"prompt", "seed", *more} - set(array.dims):
        raise ValueError(f"{name} must have dimensions {sorted(missing)} too, got {array.dims}")
    if array.sizes["seed"] < 2:
        raise ValueError("diversity is across seeds: trace each prompt under at least 2, got 1")
    return array.transpose("prompt", *more, "seed", ...)


def _measured(
    array: xr.DataArray,
    features: Features | None,
    labels: Labels | None,
    fidelity: Fidelity | None = None,
) -> xr.Dataset:
    """Every measure of every (prompt, …) cell of a (prompt, …, seed, channel, y, x) array, read a
    prompt at a time.
    """
    outer = array.dims[: array.dims.index("seed")]
    sizes = tuple(array.sizes[d] for d in outer)
    found: dict[str, np.ndarray] = {}
    for p, prompt in enumerate(array["prompt"].values):
        latents = np.asarray(array.isel(prompt=p).values, dtype=np.float32)
        for at in np.ndindex(*sizes[1:]):
            where = ", ".join(
                [
                    f"prompt {str(prompt)!r}",
                    *(f"{d} {i}" for d, i in zip(outer[1:], at, strict=True)),
                ]
            )
            for name, value in _cell(
                latents[at], str(prompt), where, features, labels, fidelity
            ).items():
                found.setdefault(name, np.full(sizes, np.nan))[(p, *at)] = value
    n_seeds = {"n_seeds": array.sizes["seed"]}
    coords = {name: c for name, c in array.coords.items() if set(c.dims) <= set(outer) and c.dims}
    return xr.Dataset(
        {name: (outer, values, n_seeds) for name, values in found.items()}, coords=coords
    )


def _cell(
    latents: np.ndarray,
    prompt: str,
    where: str,
    features: Features | None,
    labels: Labels | None,
    fidelity: Fidelity | None,
) -> dict[str, float]:
    if not np.isfinite(latents).all():
        raise ValueError(f"the latents of {where} hold NaN or infinite values")
    x = latents.reshape(len(latents), -1) if features is None else features(latents)
    measured = {
        "vendi_q2": vendi(x, q=2),
        "vendi_q1": vendi(x, q=1),
        "mean_pairwise_distance": mean_pairwise_distance(x),
        "rms": float(np.sqrt(np.mean(np.square(latents, dtype=np.float64)))),
    }
    if labels is not None:
        read = labels(latents, prompt)
        if not read:
            raise ValueError(
                f"the prompt {prompt!r} leaves no attribute open: entropy needs one that may vary"
            )
        measured["attribute_entropy"] = float(
            np.mean([attribute_entropy(*pair) for pair in read.values()])
        )
    if fidelity is not None:
        measured["fidelity"] = float(np.mean(fidelity(latents, prompt)))
    return measured


def _space(
    features: Features | FeatureSpace | str | None, labels: Labels | None, pipe: Any
) -> tuple[Features | None, Labels | None, dict[str, str]]:
    """The functions that measure, and what the attributes say of them."""
    if features is None:
        return None, labels, {"features": "latents"}
    if isinstance(features, str):
        features = feature_space(features, pipe)
    if isinstance(features, FeatureSpace):
        said = {"features": features.name} | dict(features.attrs)
        return features.features, labels or getattr(features, "labels", None), said
    return (
        features,
        labels,
        {"features": getattr(features, "__qualname__", type(features).__qualname__)},
    )


def _summarised(found: xr.Dataset, said: dict[str, str], **options: Any) -> xr.Dataset:
    """``found`` with the mean over prompts of every variable and its interval."""
    result = found.copy()
    for name, array in found.data_vars.items():
        interval = stats.bootstrap_mean(array.values, **options)
        attrs = {**array.attrs, **interval.attrs}
        for suffix, value in (
            ("mean", interval.estimate),
            ("low", interval.low),
            ("high", interval.high),
        ):
            result[f"{name}_{suffix}"] = (array.dims[1:], value, attrs)
        result.attrs |= interval.attrs
    return result.assign_attrs(**said, kernel="cosine", across="seed")


def _similarities(x: Any, kernel: str, sigma: float | None) -> np.ndarray:
    """(n, n) matrix with a diagonal of ones."""
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

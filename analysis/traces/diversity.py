"""Diversity of a trace: of x̂₀ across seeds at every noise level, and of the final pictures.

Diversity is counted within a prompt, over its seeds, then averaged over prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis import stats
from xhat.analysis.crossed import crossed_columns
from xhat.analysis.measures.by_seed import BY_SEED, LEAST_SEEDS, measure_names, values_of
from xhat.analysis.measures.registry import Samples, measure_samples
from xhat.probes.features import FeatureSpace, feature_space

Features = Callable[[np.ndarray], np.ndarray]
Labels = Callable[[np.ndarray, str], Mapping[str, tuple[np.ndarray, int]]]
Fidelity = Callable[[np.ndarray, str], np.ndarray]
Scores = Callable[[np.ndarray, str], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class _Readers:
    """What is read of the latents of one prompt; None: not read."""

    features: Features | None
    labels: Labels | None = None
    fidelity: Fidelity | None = None
    scores: Scores | None = None

    def of(self, latents: np.ndarray, prompt: str) -> Samples:
        x = latents.reshape(len(latents), -1) if self.features is None else self.features(latents)
        labels = None if self.labels is None else self.labels(latents, prompt)
        if labels is not None and not labels:
            raise ValueError(
                f"the prompt {prompt!r} leaves no attribute open: entropy needs one that may vary"
            )
        fidelity = None if self.fidelity is None else self.fidelity(latents, prompt)
        scores = None if self.scores is None else self.scores(latents, prompt)
        return Samples(latents, x, labels, fidelity, scores)


def diversity_by_noise(
    trace: Any,
    *,
    features: Features | FeatureSpace | str | None = None,
    labels: Labels | None = None,
    pipe: Any = None,
    level: float = stats.LEVEL,
    strata: Sequence[str] | None = None,
) -> xr.Dataset:
    """Diversity of x̂₀ across seeds, of every prompt at every step, with its mean over prompts.

    Parameters
    ----------
    trace
        Of :func:`xhat.trace`, three seeds or more.
    features
        Latents (n, c, h, w) float32 → (n, d), a feature space, or its name
        (:func:`xhat.probes.features.feature_space`); left out, the latents themselves, whose scale
        the cosine does not see.
    labels
        (latents, prompt) → {attribute: ((n,) labels, n_values)} of what the prompt leaves open;
        entropy is averaged over these. A space that reads attributes brings its own.
    pipe
        The pipeline that made the trace, where a name is given for ``features``.
    level, strata
        Those of :func:`~xhat.analysis.crossed.crossed_mean`.

    Returns
    -------
    Dataset
        Variables (prompt, step): those of :data:`~xhat.analysis.measures.registry.MEASURES` that
        can be told here, estimated without the bias of few seeds but for the plug-ins ``vendi_q1``,
        ``vendi_q2_plugin`` and ``attribute_entropy_plugin``. Of each ``<name>_mean`` (step, bound),
        for new prompts and new seeds, from ``<name>_by_seed`` (prompt, step, seed) where there is
        one. Coordinates of the trace along ``step`` stay.

    Raises
    ------
    ValueError
        Without ``pred_x0``, or with fewer than three seeds.
    """
    how, labels, said = _space(features, labels, pipe)
    found = _measured(_variable(trace, "pred_x0", "step"), _Readers(how, labels))
    return _summarised(found, said, level=level, strata=strata)


def final_diversity(
    trace: Any,
    *,
    features: Features | FeatureSpace | str | None = None,
    labels: Labels | None = None,
    fidelity: Fidelity | None = None,
    scores: Scores | None = None,
    pipe: Any = None,
    level: float = stats.LEVEL,
    strata: Sequence[str] | None = None,
) -> xr.Dataset:
    """Diversity of the final latents across seeds.

    Parameters
    ----------
    trace, features, labels, pipe, level, strata
        As in :func:`diversity_by_noise`.
    fidelity
        (latents, prompt) → (n,), whose mean over seeds is added under that name.
    scores
        (latents, prompt) → name → (n,). Left out, those of a space that has them
        (:class:`xhat.probes.scores.ScoredSpace`).

    Returns
    -------
    Dataset
        As :func:`diversity_by_noise` gives, without ``step``: variables (prompt,), and scalars with
        bounds for means.

    Raises
    ------
    ValueError
        As :func:`diversity_by_noise` does.
    """
    how, labels, said = _space(features, labels, pipe)
    scores = scores or getattr(features, "scores", None)
    found = _measured(_variable(trace, "final"), _Readers(how, labels, fidelity, scores))
    return _summarised(found, said, level=level, strata=strata)


def _variable(trace: Any, name: str, *more: str) -> xr.DataArray:
    """A variable of a trace as (prompt, *more, seed, …)."""
    if name not in trace:
        raise ValueError(f"this trace has no variable {name!r}: it has {sorted(trace.data_vars)}")
    array: xr.DataArray = trace[name]
    if missing := {"prompt", "seed", *more} - set(array.dims):
        raise ValueError(f"{name} must have dimensions {sorted(missing)} too, got {array.dims}")
    if (n := array.sizes["seed"]) < LEAST_SEEDS:
        raise ValueError(
            f"diversity is across seeds: trace each prompt under at least {LEAST_SEEDS}, got {n}"
        )
    return array.transpose("prompt", *more, "seed", ...)


def _measured(array: xr.DataArray, readers: _Readers) -> xr.Dataset:
    """Every measure of every (prompt, …) cell of a (prompt, …, seed, channel, y, x) array, read a
    prompt at a time.
    """
    outer = array.dims[: array.dims.index("seed")]
    sizes = tuple(array.sizes[d] for d in outer)
    seeds = array.sizes["seed"]
    found: dict[str, np.ndarray] = {}
    by_seed: dict[str, np.ndarray] = {}
    for p, prompt in enumerate(array["prompt"].values):
        latents = np.asarray(array.isel(prompt=p).values, dtype=np.float32)
        for at in np.ndindex(*sizes[1:]):
            where = ", ".join(
                [
                    f"prompt {str(prompt)!r}",
                    *(f"{d} {i}" for d, i in zip(outer[1:], at, strict=True)),
                ]
            )
            if not np.isfinite(latents[at]).all():
                raise ValueError(f"the latents of {where} hold NaN or infinite values")
            for name, value in measure_samples(readers.of(latents[at], str(prompt))).items():
                found.setdefault(name, np.full(sizes, np.nan))[(p, *at)] = np.mean(value)
                if np.ndim(value):
                    place = by_seed.setdefault(f"{name}{BY_SEED}", np.full((*sizes, seeds), np.nan))
                    place[(p, *at)] = value
    n_seeds, dims = {"n_seeds": seeds}, {*outer, "seed"}
    coords = {name: c for name, c in array.coords.items() if set(c.dims) <= dims and c.dims}
    variables = {name: (outer, values, n_seeds) for name, values in found.items()}
    variables |= {name: ((*outer, "seed"), values, n_seeds) for name, values in by_seed.items()}
    return xr.Dataset(variables, coords=coords)


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
    """``found`` with the mean of every measure and its interval, ``<name>_mean`` (…, bound)."""
    result = found.copy()
    for name in measure_names(found):
        interval = crossed_columns(values_of(found, name), **options)
        result[f"{name}_mean"] = interval.array(found[name].dims[1:]).assign_attrs(
            n_seeds=found[name].attrs["n_seeds"]
        )
    return result.assign_attrs(**said, kernel="cosine", across="seed")

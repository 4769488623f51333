"""Arms: several samplers on the same prompts and seeds, measured alike and compared prompt by
prompt.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from xhat.analysis.crossed import crossed_columns
from xhat.analysis.measures.by_seed import measure_names, values_of
from xhat.analysis.sampling.budget import duration
from xhat.analysis.sampling.cache import Cache
from xhat.analysis.sampling.final_latents import Arm, described, sample_arms, to_sample
from xhat.analysis.sampling.noise_ledger import check_paired, noise_ledger
from xhat.analysis.sampling.reference import held_against_reference
from xhat.analysis.sampling.second_judge import second_readings
from xhat.analysis.traces.diversity import final_diversity
from xhat.hooks.describe import checksum
from xhat.hooks.model import with_defaults
from xhat.hooks.points.names import denoiser_of, parts_of
from xhat.hooks.points.taps import quiet
from xhat.probes.features import FeatureSpace
from xhat.samplers.composite.starting import starts_elsewhere
from xhat.zoo.family.attributes import parse_prompt

LOG = logging.getLogger(__name__)

__all__ = [
    "Arm",
    "against",
    "cost",
    "kinds_of",
    "measure_arms",
    "measure_finals",
    "paired_values",
    "strata_of",
    "summarised",
]


def measure_arms(
    arms: Mapping[str, Arm],
    prompts: Iterable[str],
    seeds: Iterable[int],
    *,
    space: FeatureSpace,
    cache: Path | None = None,
    batch_size: int = 24,
    keep_x0: Collection[str] = (),
) -> xr.Dataset:
    """Diversity across seeds, fidelity and cost of every arm, on the same prompts and the same
    noise.

    Parameters
    ----------
    arms
        Name → arm: a pipeline, and how it is called.
    prompts, seeds
        Seed s gives every arm the same x_T, which is checked; of methods that put other noise in
        its place, it is the same before that.
    space
        Where pictures are compared.
    cache
        A folder where final latents and timings are kept as they are made, so that a run that was
        stopped goes on.
    batch_size
        Samples in one call of a pipeline.
    keep_x0
        Arms of which x̂₀ of every step is kept too.

    Returns
    -------
    Dataset
        Variables (arm, prompt): those of :data:`~xhat.analysis.measures.registry.MEASURES` that the
        space can tell; (arm): ``evaluations`` of the network and ``seconds`` for one picture on
        this machine, decoding included; (line): the ledger of noise
        (:func:`~xhat.analysis.sampling.noise_ledger.noise_ledger`).

    Raises
    ------
    ValueError
        Where arms start from other noise.
    """
    prompts, seeds = list(prompts), list(seeds)
    if not arms:
        raise ValueError("no arms to measure: expected {name: Arm(pipe, call)}")
    costs = {
        name: cached_cost(arm, prompts[0], min(8, batch_size), Cache(cache))
        for name, arm in tqdm(arms.items(), desc="timing", unit="arm")
    }
    _announce(
        to_sample(arms, prompts, seeds, cache, batch_size, keep_x0),
        costs,
        len(prompts) * len(seeds),
    )
    evaluations = {name: cost[0] for name, cost in costs.items()}
    samples = sample_arms(
        arms,
        prompts,
        seeds,
        cache=cache,
        batch_size=batch_size,
        weights=evaluations,
        keep_x0=keep_x0,
    )
    paired = check_paired(
        {name: one for name, one in samples.items() if not starts_elsewhere(arms[name].pipe)}
    )
    measured = measure_finals({name: arm["final"] for name, arm in samples.items()}, space)
    for position, name in enumerate(("evaluations", "seconds")):
        measured[name] = ("arm", np.array([costs[arm][position] for arm in arms]))
    measured = measured.merge(noise_ledger(samples))
    return measured.assign_attrs(x_T=paired, seeds=seeds, batch_size=batch_size)


def measure_finals(finals: Mapping[str, xr.DataArray], space: FeatureSpace) -> xr.Dataset:
    """The measures of :func:`measure_arms` of final latents (prompt, seed, …), by arm.

    Where the space is the judge's, the headline measures by a second judge too
    (:func:`~xhat.analysis.sampling.second_judge.second_readings`); where it has reference pictures,
    KID and precision, and of the arm as a whole FID and recall
    (:func:`~xhat.analysis.sampling.reference.held_against_reference`).
    """
    parts = []
    for final in tqdm(finals.values(), desc="measuring", unit="arm"):
        by_picture, overall = held_against_reference(final, space)
        found = final_diversity(
            {"final": final},
            features=space,
            fidelity=getattr(space, "fidelity", None),
            scores=_scores(space, by_picture) if by_picture else None,
        )
        found = found[[name for name, v in found.data_vars.items() if "prompt" in v.dims]]
        found = found.assign(overall)
        parts.append(found.merge(second_readings(final, space), combine_attrs="override"))
    joined = xr.concat(
        parts, xr.DataArray(list(finals), dims="arm", name="arm"), combine_attrs="override"
    )
    return joined.assign_attrs(n_seeds=next(iter(finals.values())).sizes["seed"], **space.attrs)


def _scores(space: Any, by_picture: Mapping[str, Mapping[str, np.ndarray]]) -> Any:
    """The space's scores, and beside them those of each picture among all of its arm."""
    own = getattr(space, "scores", None)

    def scores(latents: np.ndarray, prompt: str) -> dict[str, np.ndarray]:
        return {**(own(latents, prompt) if own else {}), **by_picture[prompt]}

    return scores


def summarised(measured: xr.Dataset, **options: Any) -> xr.Dataset:
    """Mean over prompts and seeds of every measure of every arm, with its interval.

    Parameters
    ----------
    measured
        Of :func:`measure_arms`. Kinds of prompts are strata (:func:`strata_of`).
    **options
        Those of :func:`~xhat.analysis.crossed.crossed_mean`.

    Returns
    -------
    Dataset
        (arm, bound). Plug-ins, and measures whose values by seed are not there, have intervals over
        prompts alone.
    """
    options = {"strata": strata_of(measured), **options}
    found = measured.drop_dims(["prompt", "seed"], errors="ignore")
    for name in measure_names(measured):
        values = np.stack([values_of(one, name) for one in _by_arm(measured)], axis=-1)
        found[name] = crossed_columns(values, **options).array("arm")
    return found


def against(measured: xr.Dataset, reference: str, **options: Any) -> xr.Dataset:
    """Every arm less the arm ``reference``, paired, with its interval.

    Parameters
    ----------
    measured
        Of :func:`measure_arms`. Kinds of prompts are strata (:func:`strata_of`).
    reference
        Name of an arm.
    **options
        Those of :func:`~xhat.analysis.crossed.crossed_mean`.

    Returns
    -------
    Dataset
        (arm, bound), of all arms but the reference.

    Raises
    ------
    ValueError
        For a reference that is no arm.
    """
    options = {"strata": strata_of(measured), **options}
    arms = [str(arm) for arm in measured["arm"].values]
    if reference not in arms:
        raise ValueError(f"no arm is named {reference!r}; there are {', '.join(arms)}")
    others = [arm for arm in arms if arm != reference]
    found = xr.Dataset(coords={"arm": others}, attrs={**measured.attrs, "reference": reference})
    for name in measure_names(measured):
        values = np.stack(
            [paired_values(measured, arm, reference, name) for arm in others], axis=-1
        )
        found[name] = crossed_columns(values, **options).array("arm")
    return found


def paired_values(measured: xr.Dataset, more: str, less: str, measure: str) -> np.ndarray:
    """(prompt, seed) arm ``more`` less arm ``less``; (prompt, 1) where there are none by seed."""
    a, b = (values_of(measured.sel(arm=arm), measure) for arm in (less, more))
    return b - a


def strata_of(measured: xr.Dataset) -> list[str] | None:
    """:func:`kinds_of` the prompts that were measured."""
    return kinds_of(measured["prompt"].values)


def kinds_of(prompts: Iterable[Any]) -> list[str] | None:
    """The kind of picture that each prompt asks for, where there are several kinds of two prompts
    or more each: the strata of :func:`~xhat.analysis.crossed.crossed_mean`. None elsewhere."""
    scenes = [parse_prompt(str(prompt)) for prompt in prompts]
    kinds = [scene.kind for scene in scenes if scene is not None]
    counts = Counter(kinds)
    if len(kinds) < len(scenes) or len(counts) < 2 or min(counts.values()) < 2:
        return None
    return kinds


def _by_arm(measured: xr.Dataset) -> list[xr.Dataset]:
    return [measured.isel(arm=i) for i in range(measured.sizes["arm"])]


def cached_cost(arm: Arm, prompt: str, batch_size: int, cache: Cache) -> tuple[float, float]:
    """:func:`cost`, kept in ``cache``: a run that goes on does not time again."""
    key = {"arm": checksum(described(arm)), "prompt": prompt, "batch": batch_size}

    def timed() -> xr.Dataset:
        evaluations, seconds = cost(arm.pipe, prompt, batch_size, **arm.call)
        return xr.Dataset({"evaluations": evaluations, "seconds": seconds})

    kept = cache.get("cost", key, timed)
    return float(kept["evaluations"]), float(kept["seconds"])


def cost(pipe: Any, prompt: str, batch_size: int = 8, **call: Any) -> tuple[float, float]:
    """(network evaluations, seconds) for one picture of an ordinary, untraced call; guidance counts
    twice.

    Seconds are the best of two calls of ``batch_size`` pictures, on this machine, decoding
    included."""
    evaluated = 0

    def count(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal evaluated
        evaluated += len(
            args[0] if args else kwargs["sample" if "sample" in kwargs else "hidden_states"]
        )

    handles = [
        m.register_forward_pre_hook(count, with_kwargs=True) for m in parts_of(denoiser_of(pipe))
    ]
    arguments = {"output_type": "np", **with_defaults(pipe, call)}
    times = []
    try:
        with quiet(pipe):
            for _ in range(2):
                started = time.perf_counter()
                pipe(prompt, num_images_per_prompt=batch_size, **arguments)
                times.append(time.perf_counter() - started)
    finally:
        for handle in handles:
            handle.remove()
    return evaluated / 2 / batch_size, min(times) / batch_size


def _announce(
    missing: Mapping[str, int], costs: Mapping[str, tuple[float, float]], each: int
) -> None:
    """What is left to do, before it is begun. ``missing``: pictures, by arm; ``each``: pictures of
    an arm.
    """
    seconds, left = (
        sum(costs[name][1] * count for name, count in missing.items()),
        sum(missing.values()),
    )
    there = f" ({len(missing) * each - left} are there)" if left < len(missing) * each else ""
    LOG.info(
        f"{len(missing)} arms × {each} pictures: {left} to sample{there}, about "
        f"{duration(seconds)}; `xhat plan-study` says how many an effect takes"
    )

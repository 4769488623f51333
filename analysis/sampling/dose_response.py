"""Whether a control works in a network it was not trained on: its effect, what else it moves, what
is retained.

Everything is paired: the same prompts and seeds under every scale and in every model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.crossed import UndefinedRatio, crossed_mean, crossed_ratio
from xhat.analysis.sampling.control import Control
from xhat.analysis.sampling.slider_grid import CLIPPED, UNSURE
from xhat.analysis.verdicts import margin_of, verdict
from xhat.hooks.trace import trace
from xhat.zoo.family.attributes import ATTRIBUTES, KINDS, parse_prompt

SCALES = (-2.0, -1.0, 0.0, 1.0, 2.0)


def doses(
    pipe: Any,
    control: Control,
    seeds: Sequence[int],
    space: Any,
    *,
    scales: Sequence[float] = SCALES,
    batch_size: int = 32,
    plain: xr.DataArray | None = None,
) -> xr.Dataset:
    """Pictures of a model under a control at every scale, read: the dose–response curve's data.

    Variables (scale, prompt, seed): ``score``, as the control's own score reads it; ``distance``, 1
    − cosine of the features to those of the unedited picture of the same seed; ``clipped``, share
    of values at 0 or 1. Where the space is the judge's and it knows the prompt: ``other``, total
    variation between what it reads now and before, mean over the attributes that the control does
    not turn and the prompt leaves open; ``kind_kept``, whether the picture is read as what the
    prompt names; ``confidence``, mean probability of what is read, kind and attributes.

    Scale 0 is always there; ``plain``: its final latents (prompt, seed, …), where they are known:
    nothing is changed at 0. Negative scales are left out for a control that is not signed. Raises
    ValueError for a control without prompts or score."""
    if control.score is None or not control.prompts:
        raise ValueError(
            f"{control.name}: a control is measured on its prompts, by its score; it has not both"
        )
    wanted = sorted({0.0, *(float(s) for s in scales if control.signed or s >= 0)})
    prompts = list(control.prompts)
    latents = {}
    if plain is not None:
        latents[0.0] = (
            plain.sel(prompt=prompts, seed=list(seeds)).transpose("prompt", "seed", ...).values
        )
    with control.on(pipe) as set_scale:
        for scale in (s for s in wanted if s not in latents):
            set_scale(scale)
            run = trace(
                pipe,
                prompts,
                seeds=seeds,
                batch_size=batch_size,
                progress=False,
                output_type="latent",
            )
            latents[scale] = np.asarray(run["final"].values)
    read = [_readings(latents, scale, control, prompts, space) for scale in wanted]
    dims = ("scale", "prompt", "seed")
    found = {name: (dims, np.stack([r[name] for r in read])) for name in read[0]}
    coords = {"scale": wanted, "prompt": prompts, "seed": list(seeds)}
    return xr.Dataset(found, coords=coords, attrs={"control": control.name, **space.attrs})


def _readings(
    latents: dict[float, np.ndarray],
    scale: float,
    control: Control,
    prompts: Sequence[str],
    space: Any,
) -> dict[str, np.ndarray]:
    """Each reading of the pictures at one scale, (prompt, seed)."""
    rows: dict[str, list[np.ndarray]] = {}
    for p, prompt in enumerate(prompts):
        before, now = latents[0.0][p], latents[scale][p]
        row = {"distance": _cosine_distance(space.features(before), space.features(now))}
        scene = parse_prompt(prompt) if hasattr(space, "judge") else None
        if scene is not None:
            row |= _judged(space, before, now, scene, control.attribute)
        if hasattr(space, "images"):
            images = space.images(now)
            row["clipped"] = ((images <= 0) | (images >= 1)).mean((1, 2, 3))
        assert control.score is not None
        row["score"] = control.score(now, prompt)
        for name, values in row.items():
            rows.setdefault(name, []).append(np.asarray(values, dtype=np.float64))
    return {name: np.stack(values) for name, values in rows.items() if len(values) == len(prompts)}


def _cosine_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (
        x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
        for x in (a, b)
    )
    return 1 - (a * b).sum(1)


def _judged(
    space: Any, before: np.ndarray, now: np.ndarray, scene: Any, attribute: str
) -> dict[str, np.ndarray]:
    old, new = (space.judge.probabilities(space.images(x), scene.kind) for x in (before, now))
    others = [a for a in ATTRIBUTES[scene.kind] if a != attribute and a not in scene.values]
    moved = [np.abs(new[a].astype(np.float64) - old[a]).sum(1) / 2 for a in others]
    return {
        "other": np.mean(moved, axis=0),
        "kind_kept": (new["kind"].argmax(1) == KINDS.index(scene.kind)).astype(float),
        "confidence": np.mean([p.max(1) for p in new.values()], axis=0),
    }


def dose_response(read: xr.Dataset, **options: Any) -> xr.Dataset:
    """Mean change from scale 0 of every reading, (scale, bound) each, and ``saturated`` (scale).

    ``read``: of :func:`doses`. ``effect`` is the change of the score. Changes are paired, and
    intervals are for new prompts and new seeds; options of
    :func:`~xhat.analysis.crossed.crossed_mean`. ``saturated`` (scale): where more values are
    clipped, or the judge is less sure, by more than :mod:`xhat.analysis.sampling.slider_grid`
    allows."""
    result = xr.Dataset(coords={"scale": read["scale"]}, attrs=dict(read.attrs))
    for name, values in read.data_vars.items():
        values = values.transpose("prompt", "seed", "scale")
        change = values.values - values.sel(scale=0).values[..., None]
        label = "effect" if name == "score" else str(name)
        result[label] = crossed_mean(_units(change), **options).array("scale")
    worn = np.zeros(read.sizes["scale"], dtype=bool)
    if "confidence" in read:
        worn |= result["confidence"].sel(bound="estimate").values < -UNSURE
    if "clipped" in read:
        worn |= result["clipped"].sel(bound="estimate").values > CLIPPED
    result["saturated"] = ("scale", worn, {"unsure": UNSURE, "clipped": CLIPPED})
    return result


def _units(values: np.ndarray) -> np.ndarray:
    """(prompt, seed, …), or (seed, 1, …) of a single prompt: intervals are then for that prompt."""
    return values if len(values) > 1 else np.swapaxes(values, 0, 1)


def travel(read: xr.Dataset, scale: float = 1.0) -> np.ndarray:
    """(prompt, seed) change of the score from scale −s to s; from 0 to s where there are no
    negative scales.

    Raises ValueError for a scale that was not measured.
    """
    have = read["scale"].values.tolist()
    ends = (-scale if min(have) < 0 else 0.0, scale)
    missing = [s for s in ends if s not in have]
    if missing:
        raise ValueError(
            f"scale {missing[0]:g} was not measured: there are {', '.join(f'{s:g}' for s in have)}"
        )
    low, high = (read["score"].sel(scale=s).transpose("prompt", "seed").values for s in ends)
    return high - low


def retention(
    home: xr.Dataset, away: xr.Dataset, *, scale: float = 1.0, **options: Any
) -> xr.Dataset:
    """Effect of a control in another model over its effect in the model it was trained on.

    Effects are mean :func:`travel` on the same prompts and seeds. Scalars ``home``, ``away``,
    ``retention``, each with ``bound``, for new prompts and new seeds
    (:func:`~xhat.analysis.crossed.crossed_ratio`). Where the effect at home is not told from zero
    there is nothing to retain, and ``retention`` is NaN. ``verdict``: of
    :func:`~xhat.analysis.verdicts.verdict` on the effect away, in the direction it has at home:
    ``equivalent`` is less than a quarter of the effect at home, ``""`` where there is none there.
    ``detectable``: the least effect away that would have been seen. Raises ValueError for other
    prompts or seeds."""
    for dim in ("prompt", "seed"):
        if not np.array_equal(home[dim].values, away[dim].values):
            raise ValueError(f"retention is paired: the two models were measured on other {dim}s")
    a, b = (_units(travel(read, scale)) for read in (home, away))
    effects = {n: crossed_mean(x, **options).array() for n, x in (("home", a), ("away", b))}
    result = xr.Dataset(effects, attrs={"scale": scale})
    try:
        ratio = crossed_ratio(a, b, **options).array()
    except UndefinedRatio:
        missing = xr.full_like(effects["home"], np.nan)
        return result.assign(retention=missing, verdict="", detectable=np.nan)
    way = np.sign(a.mean())
    judged = verdict(way * b, margin_of(a, **options), **options)
    return result.assign(retention=ratio, verdict=judged.kind, detectable=judged.detectable)

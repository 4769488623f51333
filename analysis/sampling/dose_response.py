"""Whether a control works in a network it was not trained on: its effect, what else it moves, what
is retained.

Everything is paired: the same prompts and seeds under every scale and in every model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis import stats
from xhat.analysis.intervals import excludes
from xhat.analysis.sampling.control import Control
from xhat.analysis.sampling.slider_grid import CLIPPED, UNSURE
from xhat.hooks.trace import trace
from xhat.zoo.family.attributes import ATTRIBUTES, KINDS, parse

SCALES = (-2.0, -1.0, 0.0, 1.0, 2.0)
UNIT = "prompt × seed"


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
        scene = parse(prompt) if hasattr(space, "judge") else None
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

    ``read``: of :func:`doses`. ``effect`` is the change of the score. Intervals are paired
    bootstraps over prompts × seeds; options of :func:`~xhat.analysis.stats.bootstrap_mean`.
    ``saturated`` (scale): where more values are clipped, or the judge is less sure, by more than
    :mod:`xhat.analysis.sampling.slider_grid` allows."""
    flat = read.stack(sample=("prompt", "seed")).transpose("sample", "scale")
    result = xr.Dataset(coords={"scale": read["scale"]}, attrs=dict(read.attrs))
    for name, values in flat.data_vars.items():
        change = values.values - values.sel(scale=0).values[:, None]
        interval = stats.bootstrap_mean(change, **{"unit": UNIT, **options})
        label = "effect" if name == "score" else str(name)
        result[label] = interval.array("scale")
    worn = np.zeros(read.sizes["scale"], dtype=bool)
    if "confidence" in read:
        worn |= result["confidence"].sel(bound="estimate").values < -UNSURE
    if "clipped" in read:
        worn |= result["clipped"].sel(bound="estimate").values > CLIPPED
    result["saturated"] = ("scale", worn, {"unsure": UNSURE, "clipped": CLIPPED})
    return result


def travel(read: xr.Dataset, scale: float = 1.0) -> np.ndarray:
    """(prompt × seed,): change of the score from scale −s to s; from 0 to s where there are no
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
    low, high = (
        read["score"].sel(scale=s).transpose("prompt", "seed").values.reshape(-1) for s in ends
    )
    return high - low


def retention(
    home: xr.Dataset, away: xr.Dataset, *, scale: float = 1.0, **options: Any
) -> xr.Dataset:
    """Effect of a control in another model over its effect in the model it was trained on.

    Effects are mean :func:`travel` on the same prompts and seeds. Scalars ``home``, ``away``,
    ``retention``, each with ``bound``: paired bootstrap over prompts × seeds. Where the interval of
    ``home`` holds zero the control has no effect to retain, and ``retention`` is NaN. Raises
    ValueError for other prompts or seeds."""
    for dim in ("prompt", "seed"):
        if not np.array_equal(home[dim].values, away[dim].values):
            raise ValueError(f"retention is paired: the two models were measured on other {dim}s")
    a, b = travel(home, scale), travel(away, scale)
    options = {"unit": UNIT, **options}
    effects = {n: stats.bootstrap_mean(x, **options).array() for n, x in (("home", a), ("away", b))}
    ratio = xr.full_like(effects["home"], np.nan)
    if excludes(effects["home"]):
        ratio = stats.paired_ratio(a, b, **options).array()
    return xr.Dataset(effects | {"retention": ratio}, attrs={"scale": scale})

"""Traces of one model alone, and what a policy reads from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from einops import rearrange

from xhat.analysis.measures.by_seed import values_of
from xhat.analysis.measures.registry import DIVERSITY
from xhat.analysis.traces.diversity import final_diversity
from xhat.hooks.trace import trace
from xhat.samplers.plans.defaults import default_guidance
from xhat.samplers.plans.plan import Plan, Segment
from xhat.samplers.rivals.registry import rival


def trace_alone(
    pair: Any, prompts: Iterable[str], seeds: Iterable[int], folder: Path, batch_size: int = 24
) -> dict[str, xr.DataTree]:
    """Traces of a pair's base and student alone, in ``FOLDER/<name>.zarr``; a run that was stopped
    goes on there.

    The base as it is called, and at the student's steps without and with its guidance; the student
    as it is called, without fresh noise, and without its first step. No run holds both models."""
    guided = default_guidance(pair.base)
    runs: dict[str, tuple[Any, dict[str, Any]]] = {
        "student": (pair.student, {}),
        "student_own_noise": (rival("own_noise", pair), {}),
        "student_skip": (rival("skip", pair), {}),
        "base_few": (rival("base_few", pair), {}),
        "base": (pair.base, {}),
    }
    if guided > 1:
        runs["base_few_guided"] = (rival("base_few", pair, guidance_scale=guided), {})
    prompts, seeds = list(prompts), list(seeds)
    return {
        name: trace(
            pipe,
            prompts,
            seeds=seeds,
            store=folder / f"{name}.zarr",
            batch_size=batch_size,
            output_type="latent",
            **call,
        )
        for name, (pipe, call) in runs.items()
    }


@dataclass(frozen=True)
class Seen:
    """What a trace says: its plan, diversity by seed (prompt, seed) and fidelity (prompt,), NaN
    where unknown, of its pictures.
    """

    name: str
    trace: xr.Dataset
    plan: Plan
    diversity: np.ndarray
    fidelity: np.ndarray

    @property
    def sigma(self) -> np.ndarray:
        return np.asarray(self.trace["sigma"].values)

    @property
    def whole(self) -> bool:
        """Whether it is one stretch of steps from the first on."""
        return len(self.plan.segments) == 1 and self.plan.segments[0].start == 0


def read_traces(traces: Mapping[str, Any], space: Any, measure: str) -> dict[str, Seen]:
    """Each trace read. ``space``: as in :func:`~xhat.analysis.sampling.arms.measure_arms`, or None
    for the latents themselves.

    Raises ValueError where there is no base or student, for traces of other prompts or seeds than
    each other's, and for a measure that cannot be had."""
    labels = getattr(space, "labels", None)
    if measure not in DIVERSITY:
        raise ValueError(f"measure={measure!r}: expected one of {', '.join(DIVERSITY)}")
    if measure == "attribute_entropy" and labels is None:
        raise ValueError(
            "attribute_entropy needs a space that reads attributes, such as JudgeSpace"
        )
    for name in ("base", "student"):
        if name not in traces:
            raise ValueError(
                "a policy is fitted on traces of 'base' and 'student'; got "
                f"{', '.join(traces) or 'none'}"
            )
    first, found = _dataset(traces["student"]), {}
    for name, tree in traces.items():
        one = _dataset(tree)
        for dim in ("prompt", "seed"):
            if not np.array_equal(one[dim].values, first[dim].values):
                raise ValueError(
                    f"the traces {name!r} and 'student' hold other {dim}s: trace the same in each"
                )
        said = final_diversity(
            one,
            features=getattr(space, "features", None),
            labels=labels,
            fidelity=getattr(space, "fidelity", None),
        )
        unknown = np.full(one.sizes["prompt"], np.nan)
        fidelity = said["fidelity"].values if "fidelity" in said else unknown
        diversity = values_of(said, measure)
        found[name] = Seen(name, one, plan_of(one, name), diversity, fidelity)
    return found


def _dataset(tree: Any) -> xr.Dataset:
    return tree.to_dataset() if isinstance(tree, xr.DataTree) else tree


def plan_of(traced: xr.Dataset, name: str) -> Plan:
    """The plan that a trace of one model ran, under the model's name: ``"base"`` or ``"student"``.

    Raises ValueError for another name, and for a trace of more than one model or under a tap.
    """
    model = name.partition("_")[0]
    if model not in ("base", "student"):
        raise ValueError(
            f"a trace is named 'base', 'student', 'base_…' or 'student_…', got {name!r}"
        )
    described = json.loads(traced.attrs.get("description", "{}"))
    if described.get("taps"):
        raise ValueError(
            f"the trace {name!r} was made under {', '.join(described['taps'])}: no policy has "
            "such a plan"
        )
    if "plan" not in described:
        call = json.loads(traced.attrs["call"])
        steps = call.get("num_inference_steps", traced.sizes["step"])
        guidance = float(call.get("guidance_scale", 1.0))
        grid: dict[str, Any] = {
            n: tuple(call[n]) for n in ("timesteps", "sigmas") if call.get(n) is not None
        }
        steps = len(next(iter(grid.values()))) if grid else steps
        return Plan([Segment(model, 0, steps, steps, guidance, **grid)])
    plan = Plan.from_json(described["plan"])
    if plan.models != (model,):
        raise ValueError(
            f"the trace {name!r} ran {' and '.join(plan.models)}: expected {model} alone"
        )
    return plan


def settled_share(traced: xr.Dataset, step: int) -> np.ndarray:
    """(prompt,) share of the final latents that x̂₀ of ``step`` settles: their squared correlation
    across seeds.

    (Σ⟨aᵢ, bᵢ⟩)²/(Σ‖aᵢ‖²·Σ‖bᵢ‖²), aᵢ and bᵢ less their means over seeds; 0 where seeds do not differ
    at all."""
    x, y = (
        rearrange(
            a.transpose("prompt", "seed", ...).values.astype(np.float64),
            "prompt seed ... -> prompt seed (...)",
        )
        for a in (traced["pred_x0"].isel(step=step), traced["final"])
    )
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    across, lengths = (x * y).sum((1, 2)) ** 2, (x * x).sum((1, 2)) * (y * y).sum((1, 2))
    return np.divide(across, lengths, out=np.zeros_like(across), where=lengths > 0)

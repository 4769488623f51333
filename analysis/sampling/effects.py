"""What a control does to a network: the same x_t, noise level and prompt, with it and without.

Networks are compared on what they are *given*, so each is run with the same inputs: at every step,
its input is replaced by that of the states, whatever its own scheduler made of the step before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from einops import rearrange

from xhat.analysis.sampling.control import Control
from xhat.analysis.sampling.joined_grid import at_levels
from xhat.analysis.traces.layers import NoSharedLevel
from xhat.analysis.traces.readings import SAMPLE, X0
from xhat.hooks.edits.edit import EQUAL, Source, replace
from xhat.hooks.noise.levels import NoiseLevel
from xhat.hooks.noise.x0 import x0_at
from xhat.hooks.trace import trace

POINTS = ("**.res.*", "**.attn.?")
"""Every residual block and every attention of a UNet."""

INPUT = "in@input"
REDUCTION = "project(256)"
LATENT = ("channel", "y", "x")


def free_runs(
    pipe: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sigmas: Sequence[float] | None = None,
    *,
    points: Sequence[str] = POINTS,
    batch_size: int = 24,
) -> xr.Dataset:
    """x̂₀, readings and inputs of a pipeline that samples as it always does, at the noise levels
    ``sigmas``.

    Variables (prompt, seed, step, …): ``x0`` (flattened x̂₀ after guidance), each point under its
    name (projected as ``project(256)``; the conditional branch), ``input`` (what the denoiser is
    given); ``final`` latents (prompt, seed, …). ``sigmas=None``: all the steps. Raises
    NoSharedLevel where the pipeline has no step at one of the levels."""
    parts = []
    for some in _chunks(
        prompts, max(1, 64 // len(seeds))
    ):  # every step and branch of a chunk is in memory at once
        hooks = dict.fromkeys(points, REDUCTION) | {INPUT: "full"}
        tree = trace(
            pipe,
            some,
            seeds=seeds,
            hooks=hooks,
            batch_size=batch_size,
            progress=False,
            output_type="latent",
        )
        steps = _steps_at(tree.coords["sigma"].values, sigmas, type(pipe).__name__)
        read = _readings(tree, steps, np.asarray(tree["pred_x0"].isel(step=steps).values))
        parts.append(read.assign(final=(("prompt", "seed", *LATENT), tree["final"].values)))
    return xr.concat(parts, "prompt", coords="minimal", compat="override")


def effect(
    pipe: Any,
    control: Control,
    states: xr.Dataset,
    *,
    points: Sequence[str] = POINTS,
    batch_size: int = 24,
    scale: float = 1.0,
    rest: xr.Dataset | None = None,
) -> xr.Dataset:
    """Change that a control makes to x̂₀ and to each point, in one network, on given states.

    Variables (prompt, seed, step, …) as in :func:`free_runs`: reading with the control less reading
    without. ε̂ changes by −(a/b)·Δx̂₀ with x_t = a·x₀ + b·ε, so the two point the same way.
    ``states``: of :func:`free_runs`, of any model; the network runs without guidance. ``rest``:
    :func:`responses` without the control, where it is known. Raises NoSharedLevel where the
    pipeline's schedule does not meet the states' noise levels."""
    rest = responses(pipe, states, points=points, batch_size=batch_size) if rest is None else rest
    with control.on(pipe) as set_scale:
        set_scale(scale)
        moved = responses(pipe, states, points=points, batch_size=batch_size)
    return (moved - rest).assign_attrs(control=control.name, scale=scale)


def responses(
    pipe: Any, states: xr.Dataset, *, points: Sequence[str] = POINTS, batch_size: int = 24
) -> xr.Dataset:
    """Readings of a pipeline's network, without guidance, when it is given the states as input.

    Variables as in :func:`free_runs`; ``x0`` is x̂₀ up to the share that x_t alone makes, which
    differences lose."""
    sigmas = states["sigma"].values
    source = Source(INPUT, states["input"], tuple(float(s) for s in sigmas))
    tree = trace(
        at_levels(pipe, sigmas.tolist()),
        [str(p) for p in states["prompt"].values],
        seeds=states["seed"].values.tolist(),
        hooks=dict.fromkeys(points, REDUCTION),
        edits=[replace(INPUT, source)],
        batch_size=batch_size,
        progress=False,
        output_type="latent",
        guidance_scale=1.0,
    )
    steps = _steps_at(tree.coords["sigma"].values, sigmas, type(pipe).__name__)
    output, levels = np.asarray(tree["model_output"].isel(step=steps).values), tree.coords
    x0 = np.empty_like(output)
    for i, step in enumerate(steps):
        level = NoiseLevel(
            *(float(levels[name].values[step]) for name in ("timestep", "sigma", "alpha_bar"))
        )
        part = torch.from_numpy(
            rearrange(output[:, :, i], "prompt seed ... -> (prompt seed) ...").copy()
        )
        estimate = x0_at(pipe.scheduler, part, level, torch.zeros_like(part)).numpy()
        x0[:, :, i] = rearrange(
            estimate, "(prompt seed) ... -> prompt seed ...", prompt=len(output)
        )
    return _readings(tree, steps, x0)


def _readings(tree: xr.DataTree, steps: list[int], x0: np.ndarray) -> xr.Dataset:
    """The activations of a trace at some steps, conditional branch, one flat dimension each."""
    found: dict[str, Any] = {X0: ((*SAMPLE, "latent"), x0.reshape(*x0.shape[:3], -1))}
    for name, node in tree["activations"].children.items():
        value = node["value"].isel(step=steps)
        if "branch" in value.dims:
            value = value.sel(branch="cond")
        if name == INPUT:
            found["input"] = ((*SAMPLE, *LATENT), value.values)
        else:
            found[name] = (
                (*SAMPLE, "component"),
                np.asarray(value.values).reshape(*value.shape[:3], -1),
            )
    coords = {name: tree.coords[name].values for name in ("prompt", "seed")}
    level = {
        name: ("step", tree.coords[name].values[steps])
        for name in ("timestep", "sigma", "alpha_bar")
    }
    return xr.Dataset(found, coords=coords | level)


def _steps_at(
    sigma: np.ndarray, wanted: Sequence[float] | np.ndarray | None, name: str
) -> list[int]:
    if wanted is None:
        return list(range(len(sigma)))
    steps = []
    for w in wanted:
        near = int(np.abs(np.log(sigma / w)).argmin())
        if abs(sigma[near] - w) > EQUAL * w:
            have = ", ".join(f"{s:.3g}" for s in sigma)
            raise NoSharedLevel(
                f"{name} has no step at σ = {w:.4g}, but at {have}: models are compared at equal "
                "noise levels; give the base a schedule that holds the student's"
            )
        steps.append(near)
    return steps


def _chunks(items: Sequence[str], size: int) -> list[list[str]]:
    return [list(items[i : i + size]) for i in range(0, len(items), size)]

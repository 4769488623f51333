"""A pipeline whose schedule also passes the noise levels of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xhat.hooks.edits.edit import EQUAL
from xhat.hooks.noise.levels import kind, noise_levels
from xhat.hooks.noise.schedulers import BY_TIMESTEP
from xhat.samplers.composite.pipeline import compose
from xhat.samplers.plans.build import whole
from xhat.samplers.plans.schedule import scheduled, timestep_at
from xhat.samplers.plans.timing import timing_of


def sigmas_of(pipe: Any) -> list[float]:
    """Noise levels σ of a pipeline's own steps, its default grid counted in."""
    segment = whole("model", pipe).segments[0]
    own = scheduled(pipe.scheduler, segment, timing=timing_of(pipe))
    return [float(sigma) for sigma in noise_levels(own).sigma]


def passing(pipe: Any, sigmas: Sequence[float]) -> Any:
    """A pipeline that passes the noise levels ``sigmas``: itself, or itself on its own grid with
    the timesteps of these levels put in, one step more for each. Raises ValueError for a scheduler
    that cannot be put on a grid.

    Before the first new level it samples as it always does, to rounding; after it, up to the
    sampler's error of discretisation.
    """
    every = sigmas_of(pipe)
    for sigma in sigmas:
        if not _among(sigma, every):
            every.append(sigma)
    return at_levels(pipe, every)


def at_levels(pipe: Any, sigmas: Sequence[float]) -> Any:
    """A pipeline on a grid of these noise levels alone: itself where they are its own. Raises
    ValueError for a scheduler that cannot be put on one.
    """
    own = sigmas_of(pipe)
    if len(own) == len(sigmas) and all(_among(s, own) for s in sigmas):
        return pipe
    grid = [timestep_at(pipe.scheduler, s) for s in sorted(sigmas, reverse=True)]
    timesteps = [float(round(t)) if kind(pipe.scheduler) in BY_TIMESTEP else float(t) for t in grid]
    return compose({"base": pipe}, whole("base", pipe, timesteps=timesteps))


def _among(sigma: float, levels: Sequence[float]) -> bool:
    return min(abs(sigma - level) for level in levels) <= EQUAL * sigma

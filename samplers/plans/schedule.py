"""A segment's own schedule: a copy of its model's scheduler, with the segment's timesteps set."""

from __future__ import annotations

import copy
import inspect
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from xhat.hooks.noise.levels import kind, space
from xhat.hooks.noise.schedulers import EDM
from xhat.samplers.plans.segment import Segment
from xhat.samplers.plans.timing import Timing

# They make a step between any two timesteps of their training schedule, but take no list of them.
_BY_HAND = {"DDIMScheduler", "DDIMParallelScheduler", "CogVideoXDDIMScheduler"}
# They want the σ at which the last step ends as well.
_ENDED = {"EulerDiscreteScheduler"}


class NoSchedule(ValueError):
    """A scheduler has no schedule of so many steps: LCM none of more than it was trained for."""


def scheduled(
    scheduler: Any, segment: Segment, device: Any = None, timing: Timing | None = None
) -> Any:
    """A scheduler of its own for a segment: the same, with the segment's spacing, number of steps
    and grid set.

    Raises ValueError for a spacing or a grid that the scheduler does not take, as
    :class:`NoSchedule` where it has none of so many steps."""
    own, timing = _respaced(scheduler, segment), timing or Timing()
    setting = settings(own, segment, timing)
    if not segment.grid:
        steps = segment.num_inference_steps
        try:
            own.set_timesteps(device=device, **setting)
        except ValueError as error:
            raise NoSchedule(f"{type(own).__name__}, {steps} steps: {error}") from error
        return own
    _check_range(own, segment)
    with _quiet(own):
        own.set_timesteps(device=device, **setting)
    if by_hand(own, segment):
        own.timesteps = torch.tensor(_whole_numbers(segment), device=device)
    _check_grid(own, segment)
    return own


def settings(scheduler: Any, segment: Segment, timing: Timing) -> dict[str, Any]:
    """The keywords of ``set_timesteps`` with which a scheduler gets the segment's schedule; without
    its grid where that is put in from outside (:func:`by_hand`).
    """
    steps = segment.num_inference_steps
    if not segment.grid:
        return {"num_inference_steps": steps, **timing.settings(scheduler, steps)}
    if by_hand(scheduler, segment):
        return {"num_inference_steps": steps}
    return timing.settings(scheduler, None) | _grid(scheduler, segment)


def by_hand(scheduler: Any, segment: Segment) -> bool:
    """Whether the segment's timesteps are put into the scheduler from outside, so that its steps do
    not end at them of themselves.
    """
    return segment.timesteps is not None and kind(scheduler) in _BY_HAND


def timestep_at(scheduler: Any, sigma: float) -> float:
    """The training timestep at noise level σ, with log σ interpolated between whole timesteps."""
    if space(scheduler) == "flow":
        share = 1.0 if math.isinf(sigma) else sigma / (1 + sigma)
        return share * scheduler.config.num_train_timesteps
    table = torch.as_tensor(scheduler.alphas_cumprod, dtype=torch.float64)
    logs = ((1 - table) / table).log() / 2
    target = math.log(sigma) if 0 < sigma < math.inf else math.copysign(math.inf, sigma - 1)
    above = int(torch.searchsorted(logs, torch.tensor(target, dtype=torch.float64)))
    if above == 0 or above == len(logs):
        return float(min(above, len(logs) - 1))
    low, high = float(logs[above - 1]), float(logs[above])
    exact = above - 1 + (target - low) / (high - low)
    return float(round(exact)) if abs(exact - round(exact)) < 1e-3 else exact  # σ come in float32


def _respaced(scheduler: Any, segment: Segment) -> Any:
    if segment.spacing is None or scheduler.config.get("timestep_spacing") == segment.spacing:
        return copy.deepcopy(scheduler)
    if "timestep_spacing" in scheduler.config:
        return type(scheduler).from_config(scheduler.config, timestep_spacing=segment.spacing)
    raise ValueError(
        f"spacing {segment.spacing!r} of the segment of {segment.model!r}: "
        f"{type(scheduler).__name__} has no timestep_spacing; leave it None"
    )


def _grid(scheduler: Any, segment: Segment) -> dict[str, Any]:
    """The keyword of ``set_timesteps`` that carries the segment's grid."""
    (name, values), flow = next(iter(segment.grid.items())), space(scheduler) == "flow"
    known = grids_taken(scheduler)
    if name not in known:
        raise ValueError(
            f"{name} of the segment of {segment.model!r}: {type(scheduler).__name__} takes none of "
            f"choice. Give {' or '.join(known) or 'a number of steps'}"
        )
    if name == "timesteps":
        return {name: [int(t) if t == int(t) else t for t in values]}
    if kind(scheduler) in _ENDED:
        values = (*values, 0.0)
    return {name: np.asarray(values) if flow else list(values)}


def grids_taken(scheduler: Any) -> list[str]:
    """Which of ``timesteps`` and ``sigmas`` a scheduler can be given.

    A flow's are its σ: timesteps alone would not agree with the σ that it shifts."""
    known = inspect.signature(scheduler.set_timesteps).parameters
    flow = space(scheduler) == "flow"
    if kind(scheduler) in _BY_HAND:
        return ["timesteps"]
    if kind(scheduler) in EDM or (not flow and kind(scheduler) == "UniPCMultistepScheduler"):
        return []
    return [
        name
        for name in ("timesteps", "sigmas")
        if name in known and not (flow and name == "timesteps")
    ]


def _whole_numbers(segment: Segment) -> list[int]:
    values = list(segment.timesteps or ())
    if any(t != int(t) for t in values):
        raise ValueError(
            f"timesteps of the segment of {segment.model!r}: expected whole numbers, got "
            f"{', '.join(f'{t:g}' for t in values)}"
        )
    return [int(t) for t in values]


def _check_range(scheduler: Any, segment: Segment) -> None:
    """Raises ValueError for timesteps that the training schedule does not have."""
    top = scheduler.config.num_train_timesteps - 1
    if segment.timesteps is not None and not max(segment.timesteps) <= top:
        raise ValueError(
            f"timesteps of the segment of {segment.model!r} begin at {segment.timesteps[0]:g}: "
            f"{type(scheduler).__name__} has timesteps 0 to {top}"
        )


def _check_grid(scheduler: Any, segment: Segment) -> None:
    """Raises ValueError where the scheduler's schedule is not the one that was asked for."""
    made = [float(t) for t in scheduler.timesteps.tolist()]
    asked = made if segment.timesteps is None else [float(t) for t in segment.timesteps]
    if len(made) != segment.num_inference_steps or not np.allclose(made, asked, atol=1e-3):
        raise ValueError(
            f"{type(scheduler).__name__} makes timesteps {', '.join(f'{t:g}' for t in made)} "
            "of the "
            f"grid of the segment of {segment.model!r}, which asks for "
            f"{', '.join(f'{t:g}' for t in asked)}"
        )


@contextmanager
def _quiet(scheduler: Any) -> Iterator[None]:
    """Without the scheduler's warning that a grid is not the one of its training: it was chosen."""
    modules = {parent.__module__ for parent in type(scheduler).__mro__}
    loggers = [logging.getLogger(name) for name in modules if name.startswith("diffusers.")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

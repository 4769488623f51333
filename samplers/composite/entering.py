"""Pictures to start from: a hybrid enters its plan where the plan's first model would at that
strength.
"""

from __future__ import annotations

import copy
from typing import Any

import torch

from xhat.samplers.composite.scheduler import CompositeScheduler


def enter_by_strength(pipe: Any, scheduler: CompositeScheduler) -> None:
    """Have a pipeline that starts from a picture enter its plan at the call's ``strength``.

    Which step that is, the pipeline itself says, of the schedule of the plan's first model alone:
    so a plan of one model starts where that model does, and a hybrid at the same noise level. The
    number of steps in the call is not looked at."""
    if not hasattr(type(pipe), "get_timesteps"):
        return

    def get_timesteps(
        num_inference_steps: int, strength: float, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, int]:
        first = scheduler.run.entries[0]
        alone = copy.copy(pipe)
        alone.register_modules(scheduler=copy.deepcopy(first.scheduler))
        steps = first.segment.num_inference_steps
        left, _ = type(pipe).get_timesteps(alone, steps, strength, *args, **kwargs)
        position = _position(scheduler, len(first.scheduler.timesteps) - len(left), strength)
        rest = scheduler.timesteps[position:]
        scheduler.set_begin_index(position)
        return rest, len(rest)

    pipe.get_timesteps = get_timesteps


def _position(scheduler: CompositeScheduler, step: int, strength: float) -> int:
    """The plan's first step at or after ``step`` of its first model's schedule. Raises ValueError
    where that model has none of them, and others follow.
    """
    entries = scheduler.run.entries
    first = entries[0]
    own = [i for i, entry in enumerate(entries) if entry.scheduler is first.scheduler]
    within = [i for i in own if entries[i].step >= step]
    if within:
        return within[0]
    if len(own) == len(entries):  # no step is left: the pipeline says so itself
        return len(entries)
    last = entries[own[-1]].step
    raise ValueError(
        f"strength {strength:g} starts at step {step} of the {len(first.scheduler.timesteps)} of "
        f"{first.segment.model!r}, whose last step in this plan is {last}: it would run none. Take "
        "more strength, or the pipeline of the model that follows alone"
    )

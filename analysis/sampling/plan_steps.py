"""The steps of plans as their pipelines' schedulers lay them out; nothing is evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from xhat.samplers.composite.scheduler import CompositeScheduler
from xhat.samplers.plans.build import whole
from xhat.samplers.plans.recipe import hybrid_plan


def pair_steps(pair: Any) -> xr.Dataset:
    """:func:`plan_steps` of base, student and their hybrid."""
    pipes = {"base": pair.base, "student": pair.student}
    plans = {name: whole(name, pipe) for name, pipe in pipes.items()}
    return plan_steps(plans | {"hybrid": hybrid_plan(*pipes.values())}, pipes)


def plan_steps(plans: Mapping[str, Any], pipes: Mapping[str, Any]) -> xr.Dataset:
    """Every step of some plans: dimension ``step`` with ``plan``, ``model``, ``sigma``,
    ``timestep`` and ``guided``.
    """
    rows = []
    for name, plan in plans.items():
        run = CompositeScheduler(plan, {model: pipes[model].scheduler for model in plan.models}).run
        rows += [
            (name, e.segment.model, e.level.sigma, e.level.timestep, e.segment.guided)
            for e in run.entries
        ]
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    names = ("plan", "model", "sigma", "timestep", "guided")
    columns[-1] = columns[-1].astype("uint8")  # netCDF has no bool
    return xr.Dataset({name: ("step", column) for name, column in zip(names, columns, strict=True)})

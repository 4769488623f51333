"""How much each further step of the base gives, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from xhat.analysis.experiments.setting import Setting
from xhat.analysis.sampling.arms import Arm, measure_arms, summarised
from xhat.samplers.composite.pipeline import hybrid
from xhat.samplers.plans.defaults import default_steps
from xhat.zoo.pairs import Pair


def sweep(
    base: Any,
    student: Any,
    base_steps: Sequence[int] = range(4),
    *,
    cache: Path | None = None,
    **setting: Any,
) -> xr.Dataset:
    """Diversity, fidelity and cost by the number of the student's steps that the base makes.

    Parameters
    ----------
    base, student
        Pipelines of one family.
    base_steps
        Numbers of steps; 0 is the student itself.
    cache
        Folder of the samples; a sweep that was stopped goes on there.
    **setting
        ``prompts``, ``seeds``, ``space``, ``scores``, ``batch_size`` of
        :class:`~xhat.analysis.experiments.setting.Setting`.

    Returns
    -------
    Dataset
        (base_steps, bound): every measure with its interval, for new prompts and seeds;
        ``evaluations`` of a picture (base_steps). ``found["vendi_q2"]`` is drawn by
        ``xhat.figures.draw("sweep", found)``.

    Raises
    ------
    ValueError
        For numbers of steps that the student has not, or that are given twice.
    """
    steps = default_steps(student)
    for n in base_steps:
        if not isinstance(n, int) or isinstance(n, bool) or not 0 <= n <= steps:
            raise ValueError(f"base_steps are from 0 to the student's {steps} steps, got {n!r}")
    pair = Pair("sweep", {"base": lambda _: base, "student": lambda _: student}, "student")
    config = Setting(pair=pair, **setting)
    arms = {str(n): Arm(hybrid(base, student, base_steps=n) if n else student) for n in base_steps}
    if len(arms) < len(base_steps):
        raise ValueError(f"base_steps must differ, got {list(base_steps)}")
    measured = measure_arms(
        arms,
        config.prompts,
        config.seeds,
        space=config.features(pair),
        cache=cache,
        batch_size=config.batch_size,
    )
    found = summarised(measured).rename(arm="base_steps")
    return found.assign_coords(base_steps=[int(n) for n in found["base_steps"].values])

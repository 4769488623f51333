"""Which step decides, in one number a step: the Shapley value of the base in the student's place,
over every pattern of who makes which step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from xhat.analysis.crossed import crossed_columns
from xhat.analysis.experiments.arm_table import margin_for
from xhat.analysis.experiments.setting import Setting
from xhat.analysis.measures.by_seed import values_of
from xhat.analysis.measures.registry import headlines, measure_label
from xhat.analysis.measures.shapley import shapley, subsets
from xhat.analysis.result import Result
from xhat.analysis.sampling.arms import Arm, measure_arms, strata_of
from xhat.analysis.table import Column, Table
from xhat.analysis.verdicts import best_of, verdict
from xhat.hooks.noise.levels import noise_levels
from xhat.samplers.composite.pipeline import hybrid
from xhat.samplers.plans.build import swap_plan
from xhat.samplers.plans.defaults import default_steps
from xhat.zoo.pairs import Pair

MOST_STEPS = 6
"""2⁶ patterns; a student of more steps is refused."""


@dataclass(frozen=True, kw_only=True)
class Credit(Setting):
    """What :func:`measure_credit` is asked: the pair, prompts, seeds and space."""

    seeds: Sequence[int] = range(12)


def measure_credit(config: Credit, *, cache: Path | None = None) -> Result:
    """What the base adds at each step of the student's schedule, unguided and from the same noise.

    Parameters
    ----------
    cache
        Folder where samples and timings are kept, so that a run that was stopped goes on.

    Returns
    -------
    Result
        ``data``: ``credit`` (:func:`credit`) and ``measured``, every pattern
        (:func:`~xhat.analysis.sampling.arms.measure_arms`).

    Raises
    ------
    ValueError
        For a student of one step, or of more than six.
    """
    pair = config.models()
    measured = measure_arms(
        pattern_arms(pair),
        config.prompts,
        config.seeds,
        space=config.features(pair),
        cache=cache,
        batch_size=config.batch_size,
    )
    levels = noise_levels(pair.student.scheduler, default_steps(pair.student)).sigma
    credited = credit(measured).assign(sigma=("step", np.asarray(levels, dtype=float)))
    data = {"credit": credited, "measured": measured}
    return Result(
        "credit",
        {name: array.assign_attrs(student=pair.chosen) for name, array in data.items()},
        credit_table(credited),
        sentences(measured),
        config.settings(),
    )


def pattern_arms(pair: Pair) -> dict[str, Arm]:
    """Pattern → arm, for every pattern: a letter a step, ``b`` where the base makes it, ``s`` where
    the student does.
    """
    steps = default_steps(pair.student)
    if not 2 <= steps <= MOST_STEPS:
        raise ValueError(
            f"the student makes {steps} step{'s' * (steps != 1)}: exact credit runs all 2ⁿ "
            f"patterns, for 2 to {MOST_STEPS} steps"
        )
    plans = {
        pattern_of(members, steps): swap_plan(pair.base, pair.student, members)
        for members in subsets(steps)
    }
    return {name: Arm(hybrid(pair.base, pair.student, plan=plan)) for name, plan in plans.items()}


def pattern_of(members: Sequence[int], steps: int) -> str:
    """
    >>> pattern_of((0, 2), 4)
    'bsbs'
    """
    return "".join("b" if i in members else "s" for i in range(steps))


def step_values(measured: xr.Dataset, measure: str) -> np.ndarray:
    """(step, prompt, seed) Shapley values of a measure; linear in the patterns' values by seed, so
    that intervals for prompts and seeds are those of any mean.
    """
    steps = len(str(measured["arm"].values[0]))
    patterns = [pattern_of(members, steps) for members in subsets(steps)]
    worth = [values_of(measured.sel(arm=pattern), measure) for pattern in patterns]
    return shapley(np.stack(worth))


def credit(measured: xr.Dataset) -> xr.Dataset:
    """Each headline measure (step, bound) as credit of the step, and ``<measure>_total`` (bound):
    the base at all steps less the student, which is their sum. ``step`` counts from 1.
    """
    strata = strata_of(measured)
    credited = xr.Dataset(attrs=measured.attrs)
    for name in headlines(measured.data_vars):
        values = step_values(measured, name)
        by_step = crossed_columns(np.moveaxis(values, 0, -1), strata=strata).array("step")
        total = crossed_columns(values.sum(0), strata=strata).array()
        credited = credited.assign({name: by_step, f"{name}_total": total})
    return credited.assign_coords(step=np.arange(1, credited.sizes["step"] + 1))


def credit_table(credited: xr.Dataset) -> Table:
    """A row a step, then the sum."""
    names = headlines(credited.data_vars)
    rows = [
        [f"step {int(step)}", *(credited[name].sel(step=step) for name in names)]
        for step in credited["step"].values
    ]
    rows.append(["all steps", *(credited[f"{name}_total"] for name in names)])
    columns = [Column("made by the base"), *(Column(measure_label(n), signed=True) for n in names)]
    note = (
        "Shapley values over all patterns of who makes which step: what the base adds there, "
        "averaged over what it makes besides. They sum to the base at all steps less the student."
    )
    return Table(columns, rows, "Which step decides", (note,))


def sentences(measured: xr.Dataset) -> tuple[str, ...]:
    """Whether the first step adds more than the others do on average, and which adds most."""
    measure = headlines(measured.data_vars)[0]
    values, strata = step_values(measured, measure), strata_of(measured)
    if not np.isfinite(values).all():
        return ("Of some prompt no two pictures are alike at all: give more seeds.",)
    margin, text = margin_for(measured, measure), measure_label(measure)
    contrast = verdict(values[0] - values[1:].mean(0), margin, strata=strata)
    best, judged = best_of(values, margin, strata=strata)
    words = f"the base at step {best + 1}, whose credit is the largest of {len(values)},"
    return (
        contrast.sentence("credit of the first step", "that of the others on average", text),
        judged.sentence(words, "the student there", text),
    )

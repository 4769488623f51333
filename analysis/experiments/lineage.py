"""What each stage of a lineage loses: guidance, few steps, tuning, distillation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.crossed import crossed_columns
from xhat.analysis.experiments.arm_table import FIDELITY_MARGIN, arm_table
from xhat.analysis.experiments.setting import Setting
from xhat.analysis.measures.registry import headlines, measure_label
from xhat.analysis.result import Result
from xhat.analysis.sampling.arms import Arm, measure_arms, paired_values, strata_of, summarised
from xhat.analysis.table import Table
from xhat.analysis.verdicts import margin_of, verdict
from xhat.hooks.model import defaults
from xhat.samplers.plans.defaults import default_guidance, default_steps
from xhat.samplers.rivals.registry import rival
from xhat.zoo.pairs import Pair

UNGUIDED = "base, unguided"


@dataclass(frozen=True)
class Stage:
    """A sampler of a lineage: ``after`` which other it comes, None of the first, and what is
    ``new`` in it.
    """

    arm: Arm
    after: str | None = None
    new: str = ""


@dataclass(frozen=True, kw_only=True)
class Lineage(Setting):
    """What :func:`measure_lineage` is asked: ``pair`` is of :func:`lineage_of`."""


def lineage_of(models: Mapping[str, Any]) -> Pair:
    """Pipelines by name, each made of the one before it, the base first, as a pair whose student is
    the last of them. Raises ValueError for fewer than two.
    """
    if len(models) < 2:
        raise ValueError(f"a lineage is of two or more models, got {len(models)}")
    base, *others = models
    named = {"base": models[base], **{name: models[name] for name in others}}
    return Pair(
        " → ".join(models), {n: partial(_given, pipe) for n, pipe in named.items()}, others[-1]
    )


def _given(pipe: Any, _: Pair) -> Any:
    return pipe


def measure_lineage(config: Lineage, *, cache: Path | None = None) -> Result:
    """Every stage on the same prompts and seeds, and each less the one before it.

    The base without guidance comes first, where it has any. A model of fewer steps than the one
    before it has that one at as few steps, unguided, in between: what few steps lose is not put
    down to the distillation.

    Parameters
    ----------
    cache
        Folder where samples and timings are kept, so that a run that was stopped goes on.

    Returns
    -------
    Result
        ``data["lineage"]``: every headline measure (stage, bound), ``<measure>_change`` (stage,
        bound) less the stage ``after`` (stage), ``new`` (stage), ``evaluations`` (stage);
        ``data["measured"]``: of :func:`~xhat.analysis.sampling.arms.measure_arms`.
    """
    pair = config.models()
    found = stages(pair)
    measured = measure_arms(
        {name: stage.arm for name, stage in found.items()},
        config.prompts,
        config.seeds,
        space=config.features(pair),
        cache=cache,
        batch_size=config.batch_size,
    )
    return Result(
        "lineage",
        {"lineage": lineage(measured, found), "measured": measured},
        lineage_table(measured),
        sentences(measured, found),
        config.settings(),
    )


def stages(pair: Pair) -> dict[str, Stage]:
    """Name → stage, in order."""
    base, found = pair.base, dict[str, Stage]()
    if default_guidance(base) > 1:
        found[UNGUIDED] = Stage(Arm(base, {**defaults(base), "guidance_scale": 1.0}))
        found["base"] = Stage(Arm(base), UNGUIDED, "guidance")
    else:
        found["base"] = Stage(Arm(base))
    before, parent = "base", base
    for name, pipe in pair.students.items():
        after, new = before, "training"
        steps = default_steps(pipe)
        if steps < default_steps(parent):
            few = rival("base_few", parent, pipe)
            after, new = f"{before} at {steps} steps, unguided", "distillation"
            plain = UNGUIDED if before == "base" and UNGUIDED in found else before
            found[after] = Stage(Arm(few), plain, "few steps")
        found[name] = Stage(Arm(pipe), after, new)
        before, parent = name, pipe
    return found


def lineage(measured: xr.Dataset, found: Mapping[str, Stage]) -> xr.Dataset:
    """The levels of every stage and their changes, for table and figure."""
    names = headlines(measured.data_vars)
    levels = summarised(measured)
    data = (
        levels[names]
        .rename(arm="stage")
        .assign(
            evaluations=("stage", measured["evaluations"].values),
            after=("stage", [stage.after or "" for stage in found.values()]),
            new=("stage", [stage.new for stage in found.values()]),
        )
    )
    for name in names:
        changes = [_change(measured, at, stage, name) for at, stage in found.items()]
        data[f"{name}_change"] = xr.concat(changes, "stage").assign_attrs(levels[name].attrs)
    return data


def _change(measured: xr.Dataset, at: str, stage: Stage, name: str) -> xr.DataArray:
    """A stage less the one before it, (bound); NaN of the first."""
    if stage.after is None:
        values = np.full((measured.sizes["prompt"], measured.attrs["n_seeds"]), np.nan)
        return crossed_columns(np.nan_to_num(values), strata=strata_of(measured)).array() * np.nan
    difference = paired_values(measured, at, stage.after, name)
    return crossed_columns(difference, strata=strata_of(measured)).array()


def lineage_table(measured: xr.Dataset) -> Table:
    """A row a stage, in order."""
    labels = {str(arm): str(arm) for arm in measured["arm"].values}
    return arm_table(measured, labels, caption="A lineage, stage by stage")


def sentences(measured: xr.Dataset, found: Mapping[str, Stage]) -> tuple[str, ...]:
    """What each stage changes, a sentence a measure; the whole way from first to last before."""
    first, *_, last = found
    strata = strata_of(measured)
    lines = []
    for name in headlines(measured.data_vars):
        whole = paired_values(measured, first, last, name)
        margin = margin_of(whole, strata=strata) if np.isfinite(whole).all() else None
        margin = FIDELITY_MARGIN if name == "fidelity" else margin
        pairs = [(last, first, "")]
        pairs += [(at, s.after, s.new) for at, s in found.items() if s.after is not None]
        for at, after, new in pairs:
            difference = paired_values(measured, at, after, name)
            if not np.isfinite(difference).all():
                continue
            judged = verdict(difference, margin, strata=strata)
            what = f"{new}: " if new else "all in all: "
            lines.append(what + judged.sentence(at, after, measure_label(name)))
    return tuple(lines)

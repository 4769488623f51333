"""Where a student's seeds collapse, and what a few steps of its base give back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.experiments.arm_table import (
    FIDELITY_MARGIN,
    arm_table,
    contrast_sentence,
    few_step_base,
    margin_for,
)
from xhat.analysis.experiments.collapse_text import of_commitment, of_diversity, of_each
from xhat.analysis.experiments.setting import Setting
from xhat.analysis.measures.registry import DIVERSITY, headlines, measure_label
from xhat.analysis.result import Result
from xhat.analysis.sampling.arms import (
    Arm,
    cached_cost,
    measure_finals,
    paired_values,
    strata_of,
)
from xhat.analysis.sampling.cache import Cache
from xhat.analysis.sampling.plan_steps import pair_steps
from xhat.analysis.table import Table
from xhat.analysis.traces.commitment import commitment
from xhat.analysis.traces.curves import join_curves, less_reference
from xhat.analysis.traces.diversity import diversity_by_noise
from xhat.analysis.traces.frames import final_pictures, frames_of
from xhat.analysis.traces.wall import wall_of
from xhat.analysis.verdicts import verdict
from xhat.hooks.trace import trace
from xhat.samplers.composite.pipeline import hybrid
from xhat.samplers.plans.defaults import default_steps
from xhat.samplers.rivals.registry import rival

SHOWN_PROMPTS, SHOWN_SEEDS, WALL_PROMPTS = 4, 8, 3
WALL = ("base", "student", "hybrid", "control", "control_hybrid")
CONTRASTS = (
    ("hybrid", "student"),
    ("student", "base"),
    ("hybrid_one", "student"),
    ("student", "base_few"),
    ("hybrid", "base"),
    ("control", "base"),
    ("control_hybrid", "control"),
)
"""What is compared, fixed before any run; the first is the primary contrast."""
FIDELITY = (("hybrid", "student"), ("student", "base"))
WORDS = {
    "base": "the base",
    "base_few": "the base at the student's steps, guidance 1",
    "student": "the student",
    "hybrid_one": "the hybrid of one evaluation",
    "hybrid": "the hybrid",
    "control": "the late-committing control",
    "control_hybrid": "the hybrid of the control",
}


@dataclass(frozen=True, kw_only=True)
class Demo(Setting):
    """What :func:`demo` is asked.

    Parameters
    ----------
    control
        A student of the same family that commits late, to be shown beside the other with the same
        recipe (default: the pair's own ``control``, where it has one).
    """

    control: str | None = None


def demo(config: Demo, *, traces: Path) -> Result:
    """Trace base, student and hybrid on the same prompts and seeds, and compare them.

    Parameters
    ----------
    traces
        Folder of the traces, ``<arm>.zarr``; a run that was stopped goes on there.

    Returns
    -------
    Result
        ``data``: ``measured`` (arm, prompt), with ``evaluations`` and ``seconds`` of a picture
        (arm); curves over the noise level, ``diversity`` and ``commitment``; pictures,
        ``samples``, ``filmstrip`` and ``wall``; ``schematic``, the steps of the plans.
    """
    pair = config.models()
    control = late_control(pair, config.control)
    arms = collapse_arms(pair, control)
    traced = {
        name: trace(
            arm.pipe,
            config.prompts,
            seeds=config.seeds,
            store=traces / f"{name}.zarr",
            batch_size=config.batch_size,
            **arm.call,
        )
        for name, arm in arms.items()
    }
    space, cache = config.features(pair), Cache(traces)
    finals = {name: tree.to_dataset()["final"] for name, tree in traced.items()}
    measured = measure_finals(finals, space)
    costs = [cached_cost(arm, config.prompts[0], 8, cache) for arm in arms.values()]
    for position, name in enumerate(("evaluations", "seconds")):
        measured[name] = ("arm", [cost[position] for cost in costs])
    measured["label"] = ("arm", list(arm_labels(pair, control, measured).values()))
    data = {"measured": measured, **figure_data(pair, traced, space)}
    return Result(
        "demo",
        {name: array.assign_attrs(student=pair.chosen) for name, array in data.items()},
        collapse_table(measured),
        sentences(measured),
        config.settings() | {"control": control},
    )


def collapse_arms(pair: Any, control: str | None = None) -> dict[str, Arm]:
    """Base, base at the student's steps, student, hybrids of one evaluation and of the default
    recipe; and the control with the same hybrid.
    """
    base, student = pair.base, pair.student
    arms = {
        "base": Arm(base),
        "base_few": Arm(rival("base_few", pair)),
        "student": Arm(student),
        "hybrid_one": Arm(hybrid(base, student, base_evaluations=1)),
        "hybrid": Arm(hybrid(base, student)),
    }
    if control is not None:
        late = pair.students[control]
        arms |= {"control": Arm(late), "control_hybrid": Arm(hybrid(base, late))}
    return arms


def late_control(pair: Any, control: str | None) -> str | None:
    """The late-committing student that is shown beside: the one asked for, or the pair's own."""
    name = control or pair.control
    if name is not None and name not in pair.students:
        raise ValueError(
            f"no student {name!r} to be the control; there are {', '.join(pair.students)}"
        )
    return None if name == pair.chosen else name


def arm_labels(pair: Any, control: str | None, measured: xr.Dataset) -> dict[str, str]:
    """What each arm is, in words."""
    few = float(measured["evaluations"].sel(arm="base_few"))
    words = {
        "base": "base",
        "base_few": few_step_base(default_steps(pair.student), few),
        "student": f"student ({pair.chosen})",
        "hybrid_one": "hybrid, one evaluation of the base",
        "hybrid": "hybrid",
        "control": f"late-committing control ({control})",
        "control_hybrid": "hybrid of the control",
    }
    return {name: words[name] for name in measured["arm"].values.tolist()}


def figure_data(pair: Any, traced: dict[str, xr.DataTree], space: Any) -> dict[str, xr.Dataset]:
    """What the demo's figures are drawn from, beside the table."""
    curves = {
        name: diversity_by_noise(
            tree, features=space.features, labels=getattr(space, "labels", None)
        )
        for name, tree in traced.items()
    }
    paired = {name: less_reference(curve, curves["base"]) for name, curve in curves.items()}
    committed = {name: commitment(tree) for name, tree in traced.items()}
    prompts = next(iter(traced.values())).to_dataset()["prompt"].values
    return {
        "samples": final_pictures(traced, [str(p) for p in prompts[:SHOWN_PROMPTS]], SHOWN_SEEDS),
        "filmstrip": frames_of(traced, pair.base.vae, prompts=1, seeds=1),
        "diversity": _with_finding(join_curves(paired), of_diversity).assign_attrs(
            reference="base"
        ),
        "commitment": _with_finding(join_curves(committed), of_commitment),
        "schematic": pair_steps(pair),
        "wall": wall_of(
            {name: traced[name] for name in WALL if name in traced},
            pair.base.vae,
            features=space.features,
            prompts=WALL_PROMPTS,
        ),
    }


def _with_finding(curves: xr.Dataset, sentence: Callable[[str, xr.Dataset], str]) -> xr.Dataset:
    return curves.assign_attrs(finding=of_each(curves, sentence))


def collapse_table(measured: xr.Dataset) -> Table:
    """A row an arm."""
    arms = measured["arm"].values.tolist()
    words = measured["label"].values.tolist() if "label" in measured else arms
    labels = dict(zip(arms, words, strict=True))
    return arm_table(measured, labels, caption="Base, student and hybrid")


def sentences(measured: xr.Dataset) -> list[str]:
    """The verdict on each of :data:`CONTRASTS`, by every headline measure of diversity; whether
    fidelity is kept; last, whether the base's steps give the student more than the control.
    """
    arms = set(measured["arm"].values.tolist())
    measures = [name for name in headlines(measured.data_vars) if name in DIVERSITY]
    lines = [
        contrast_sentence(measured, more, less, measure, WORDS)
        for more, less in CONTRASTS
        if {more, less} <= arms
        for measure in measures
    ]
    if "fidelity" in measured:
        lines += [_of_fidelity(measured, *pair) for pair in FIDELITY if set(pair) <= arms]
    if {"hybrid", "student", "control_hybrid", "control"} <= arms:
        lines += [line for measure in measures for line in _of_gains(measured, measure)]
    return lines


def _of_fidelity(measured: xr.Dataset, more: str, less: str) -> str:
    difference = paired_values(measured, more, less, "fidelity")
    judged = verdict(difference, FIDELITY_MARGIN, strata=strata_of(measured))
    return judged.sentence(WORDS[more], WORDS[less], measure_label("fidelity"))


def _of_gains(measured: xr.Dataset, measure: str) -> list[str]:
    """The verdict on the hybrid's gain over the student less that over the control; nothing where a
    diversity is infinite.
    """
    gain, late = (
        paired_values(measured, more, less, measure)
        for more, less in (("hybrid", "student"), ("control_hybrid", "control"))
    )
    if not np.isfinite(gain - late).all():
        return []
    judged = verdict(gain - late, margin_for(measured, measure), strata=strata_of(measured))
    what = f"gain in {measure_label(measure)} by the hybrid"
    return [judged.sentence(WORDS["student"], WORDS["control"], what)]

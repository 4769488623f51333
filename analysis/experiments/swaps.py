"""Which step decides: every step of a student's schedule made by its base, and the controls that
tell causes apart.

The arms are plans (:mod:`xhat.samplers.plans.build`) on one schedule, from the same noise, measured
on the same prompts. A pattern names a swap: a letter for each step, ``s`` the student's, ``b`` the
base's, ``B`` the base's under guidance, ``f`` the base's followed by fresh noise, as the student's
steps are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.sampling.arms import Arm, against, measure_arms, summarised
from xhat.probes.features import FeatureSpace
from xhat.samplers.composite.pipeline import hybrid
from xhat.samplers.plans.build import control_plans, swap_plan
from xhat.samplers.plans.defaults import default_guidance, default_steps
from xhat.samplers.plans.plan import Plan

KINDS = {
    "student": (("student", "the student"),),
    "first step": (("skip", "first step skipped"), ("hybrid", "first step the base's")),
    "x̂₀ handed over": (
        ("fresh", "base's x̂₀, fresh noise"),
        ("fresh_shuffle", "another seed's x̂₀"),
        ("fresh_mean", "mean x̂₀ over seeds"),
        ("fresh_zero", "x̂₀ zeroed"),
    ),
    "noise": (
        ("student_own", "student, own noise"),
        ("hybrid_own", "hybrid, own noise"),
        ("student_shared", "student, shared noise"),
        ("hybrid_shared", "hybrid, shared noise"),
    ),
    "guidance": (
        ("student_guided", "student's first step guided"),
        ("hybrid_guided", "base's first step guided"),
    ),
    "strength": (),
    "base": (("base_few", "base, student's steps"), ("base", "base, its own steps")),
}
"""Controls by what they vary, with what is printed for them; strengths are added as they come."""


def swap_sets(steps: int) -> dict[tuple[int, ...], str]:
    """Steps that the base makes → their kind: none, leading, trailing, single, all but one, all.

    A student's steps put into the base's run are the same sets: those that are left.

    >>> list(swap_sets(2).items())
    [((), 'none'), ((0,), 'leading'), ((1,), 'trailing'), ((0, 1), 'all')]
    """
    every = tuple(range(steps))
    found: dict[tuple[int, ...], str] = {(): "none"}
    found |= {every[:k]: "leading" for k in range(1, steps)} | {
        every[k:]: "trailing" for k in range(steps - 1, 0, -1)
    }
    for i in every:
        found.setdefault((i,), "single")
    for i in every:
        found.setdefault((*every[:i], *every[i + 1 :]), "all but one")
    return found | {every: "all"}


def swap_plans(
    base: Any, student: Any, *, guided_scale: float, steps: int | None = None
) -> dict[str, Plan]:
    """Pattern → plan of every set of :func:`swap_sets`; of leading, trailing and all also with
    fresh noise after the base's steps, and of leading and all also under guidance."""
    steps = default_steps(student) if steps is None else steps
    plans = {}
    for chosen, of_kind in swap_sets(steps).items():
        plans[_pattern(chosen, steps, "b")] = plain = swap_plan(
            base, student, chosen, num_inference_steps=steps
        )
        if of_kind in ("leading", "trailing", "all"):
            noisy = Plan(
                replace(s, noise="fresh") if s.model == "base" else s for s in plain.segments
            )
            plans[_pattern(chosen, steps, "f")] = noisy
        if of_kind in ("leading", "all"):
            plans[_pattern(chosen, steps, "B")] = swap_plan(
                base, student, chosen, num_inference_steps=steps, base_guidance_scale=guided_scale
            )
    return plans


def _pattern(chosen: Collection[int], steps: int, letter: str) -> str:
    return "".join(letter if i in chosen else "s" for i in range(steps))


def swap_arms(
    base: Any, student: Any, *, guided_scale: float | None = None
) -> tuple[dict[str, Arm], dict[str, str], dict[str, str]]:
    """The arms of the swap matrix and of the controls, each plan once; and their names: pattern →
    arm, control → arm.

    ``guided_scale``: the base's guidance where it is guided, its own by default. Strengths between
    the models are left out where their weights are not of one shape."""
    scale = default_guidance(base) if guided_scale is None else guided_scale
    controls = dict(control_plans(base, student, guided_scale=scale).items())
    arms: dict[str, Arm] = {
        "student": Arm(hybrid(base, student, plan=controls["student"])),
        "base": Arm(base),
    }
    known = {controls["student"]: "student"}
    of_control = {"student": "student", "base": "base"}
    of_pattern: dict[str, str] = {}
    swaps = swap_plans(base, student, guided_scale=scale)
    for named, plans in ((of_control, controls), (of_pattern, swaps)):
        for name, plan in plans.items():
            if plan not in known:
                pipe = _dialled_or_none(base, student, plan)
                if pipe is None:
                    continue
                arms[name], known[plan] = Arm(pipe), name
            named[name] = known[plan]
    return arms, of_pattern, of_control


def _dialled_or_none(base: Any, student: Any, plan: Plan) -> Any:
    try:
        return hybrid(base, student, plan=plan)
    except ValueError:
        if all(segment.strength == 1 for segment in plan.segments):
            raise
        return None  # weights of different shapes have nothing between them


@dataclass(frozen=True)
class Swaps:
    """``arms``: each plan once; ``measured``: all of them
    (:func:`~xhat.analysis.sampling.arms.measure_arms`); and what is read from these:
    :func:`swap_matrix` and :func:`control_table`."""

    arms: dict[str, Arm]
    measured: xr.Dataset
    matrix: xr.Dataset
    controls: xr.Dataset


def measure_swaps(
    base: Any,
    student: Any,
    prompts: Iterable[str],
    seeds: Iterable[int],
    *,
    space: FeatureSpace,
    cache: Path | None = None,
    guided_scale: float | None = None,
    batch_size: int = 24,
) -> Swaps:
    """The swap matrix and the controls, on the same prompts, seeds and noise. ``cache``: where
    samples are kept.

    A batch holds all seeds of a prompt at least, so that a mean over
    seeds is that over all of them.
    """
    prompts, seeds = list(prompts), list(seeds)
    if len(seeds) < 2:
        raise ValueError(f"diversity is across seeds: give two or more, got {len(seeds)}")
    arms, of_pattern, of_control = swap_arms(base, student, guided_scale=guided_scale)
    measured = measure_arms(
        arms,
        prompts,
        seeds,
        space=space,
        cache=cache,
        batch_size=max(batch_size, len(seeds)),
        keep_x0=TRACED,
    )
    scale = default_guidance(base) if guided_scale is None else guided_scale
    measured = measured.assign_attrs(guided_scale=scale)
    return Swaps(
        arms, measured, swap_matrix(measured, of_pattern), control_table(measured, of_control)
    )


TRACED = ("base", "base_few", "student", "hybrid")
"""Arms of which x̂₀ is kept at every step, for :mod:`xhat.analysis.sampling.sensitivity`."""


def swap_matrix(measured: xr.Dataset, of_pattern: Mapping[str, str]) -> xr.Dataset:
    """One line a pattern. Variables (arm): ``kind`` (see :func:`swap_sets`), ``label``; mean and
    interval of each measure; the same ``_less_student`` and ``_less_base_few``, paired over
    prompts; ``evaluations``, ``seconds``."""
    found = _table(measured, of_pattern)
    steps = len(next(iter(of_pattern)))
    kinds = {_pattern(chosen, steps, "b"): kind for chosen, kind in swap_sets(steps).items()}
    patterns = found["arm"].values.tolist()
    kind = [kinds[pattern.replace("B", "b").replace("f", "b")] for pattern in patterns]
    label = [f"{pattern}  {k}" for pattern, k in zip(patterns, kind, strict=True)]
    return found.assign(kind=("arm", np.array(kind)), label=("arm", np.array(label)))


def control_table(measured: xr.Dataset, of_control: Mapping[str, str]) -> xr.Dataset:
    """One line a control, as :func:`swap_matrix`; ``varies`` (arm): what it varies, ``label``: what
    it is.
    """
    lines = [
        (name, varies, label)
        for varies, members in _kinds(of_control).items()
        for name, label in members
    ]
    lines = [line for line in lines if line[0] in of_control]
    found = _table(measured, {name: of_control[name] for name, *_ in lines})
    columns = {
        name: ("arm", np.array([line[i] for line in lines]))
        for i, name in ((1, "varies"), (2, "label"))
    }
    return found.assign(columns)


def _kinds(names: Iterable[str]) -> dict[str, tuple[tuple[str, str], ...]]:
    dials = tuple(
        (n, f"strength {n.removeprefix('strength_')}") for n in names if n.startswith("strength_")
    )
    return {**KINDS, "strength": dials}


def _table(measured: xr.Dataset, names: Mapping[str, str]) -> xr.Dataset:
    """Means, intervals and differences of the named arms, under their names."""
    lines = list(names.values())
    found = summarised(measured)
    found = found.drop_vars([name for name, v in found.data_vars.items() if v.dims != ("arm",)])
    for reference in ("student", "base_few"):
        less = against(measured, reference)
        less = less.reindex(arm=measured["arm"], fill_value=0.0)  # of an arm with itself
        found = found.assign(
            {f"{_measure(n)}_less_{reference}_{_part(n)}": v for n, v in less.data_vars.items()}
        )
    for variable in found.variables.values():
        # the table's own say the same of all, and a file of many small variables is mostly these
        variable.attrs = {}
    return found.sel(arm=lines).assign_coords(arm=list(names))


def _measure(name: Any) -> str:
    return str(name).rpartition("_")[0]


def _part(name: Any) -> str:
    return str(name).rpartition("_")[2]

"""The arms that tell which step decides: every step of a student's schedule made by its base, and
the controls that tell causes apart.

The arms are plans (:mod:`xhat.samplers.plans.build`) on one schedule, from the same noise. A
pattern names a swap: a letter for each step, ``s`` the student's, ``b`` the base's, ``B`` the
base's under guidance, ``f`` the base's followed by fresh noise, as the student's steps are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from xhat.analysis.sampling.final_latents import Arm
from xhat.samplers.composite.fit import DifferentArchitecture
from xhat.samplers.composite.pipeline import hybrid
from xhat.samplers.plans.build import control_plans, swap_plan
from xhat.samplers.plans.defaults import default_guidance, default_steps
from xhat.samplers.plans.plan import Plan

KINDS = {
    "student": (("student", "the student"),),
    "first step": (
        ("skip", "first step skipped"),
        ("hybrid_paper", "one evaluation of the base, fresh noise"),
        ("hybrid_one", "one evaluation of the base"),
        ("hybrid", "the hybrid: several evaluations of the base"),
    ),
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
    "base": (
        ("base_few", "base at the student's steps, guidance 1"),
        ("base", "base, its own steps"),
    ),
}
"""Controls by what they vary, with what is printed for them; strengths are added as they come."""


def swap_sets(steps: int) -> dict[tuple[int, ...], str]:
    """Steps that the base makes → their kind: none, leading, trailing, single, all but one, all.

    A student's steps put into the base's run are the same sets: those that are left.

    >>> list(swap_sets(2).items())
    [((), 'none'), ((0,), 'leading'), ((1,), 'trailing'), ((0, 1), 'all')]
    """
    every = tuple(range(steps))
    sets: dict[tuple[int, ...], str] = {(): "none"}
    sets |= {every[:k]: "leading" for k in range(1, steps)} | {
        every[k:]: "trailing" for k in range(steps - 1, 0, -1)
    }
    for i in every:
        sets.setdefault((i,), "single")
    for i in every:
        sets.setdefault((*every[:i], *every[i + 1 :]), "all but one")
    return sets | {every: "all"}


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


@dataclass(frozen=True)
class SwapArms:
    """Each plan once, and the arm behind each pattern and each control."""

    arms: Mapping[str, Arm]
    of_pattern: Mapping[str, str]
    of_control: Mapping[str, str]
    guided_scale: float


def swap_arms(base: Any, student: Any, *, guided_scale: float | None = None) -> SwapArms:
    """The arms of the swap matrix and of the controls.

    Parameters
    ----------
    guided_scale
        The base's guidance where it is guided, its own by default.

    Notes
    -----
    Strengths between the models are left out where their weights are not of one shape.
    """
    scale = default_guidance(base) if guided_scale is None else guided_scale
    controls = control_plans(base, student, guided_scale=scale)
    arms: dict[str, Arm] = {
        "student": Arm(hybrid(base, student, plan=controls["student"])),
        "base": Arm(base),
    }
    arm_of = {controls["student"]: "student"}
    of_control = {"student": "student", "base": "base"}
    of_pattern: dict[str, str] = {}
    swaps = swap_plans(base, student, guided_scale=scale)
    for names, plans in ((of_control, controls), (of_pattern, swaps)):
        for name, plan in plans.items():
            if plan not in arm_of:
                pipe = _dialled_or_none(base, student, plan)
                if pipe is None:
                    continue
                arms[name], arm_of[plan] = Arm(pipe), name
            names[name] = arm_of[plan]
    return SwapArms(arms, of_pattern, of_control, scale)


def _dialled_or_none(base: Any, student: Any, plan: Plan) -> Any:
    try:
        return hybrid(base, student, plan=plan)
    except DifferentArchitecture:
        return None  # weights of different shapes have nothing between them


def kind_of_pattern(pattern: str) -> str:
    """Which kind of set (:func:`swap_sets`) the base makes in a pattern.

    >>> kind_of_pattern("Bsss"), kind_of_pattern("sbbb")
    ('leading', 'trailing')
    """
    made = tuple(i for i, letter in enumerate(pattern) if letter != "s")
    return swap_sets(len(pattern))[made]


def control_lines(names: Collection[str]) -> list[tuple[str, str, str]]:
    """(control, what it varies, what it is) of every control among ``names``, in reading order."""
    dials = tuple(
        (n, f"strength {n.removeprefix('strength_')}") for n in names if n.startswith("strength_")
    )
    kinds = {**KINDS, "strength": dials}
    return [
        (name, varies, label)
        for varies, members in kinds.items()
        for name, label in members
        if name in names
    ]

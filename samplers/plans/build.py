"""The plans that questions are asked with: one model alone, swaps of single steps, and the controls
of hybrids.

All are made from the pipelines' schedulers and the defaults that belong to them; nothing is
evaluated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby
from typing import Any

from xhat.hooks.model import model_of
from xhat.hooks.noise.levels import kind, noise_levels, space
from xhat.hooks.noise.schedulers import BY_TIMESTEP
from xhat.samplers.plans.defaults import default_guidance, schedule_of
from xhat.samplers.plans.plan import Plan, Segment
from xhat.samplers.plans.recipe import hybrid_plan, trailing
from xhat.samplers.plans.schedule import grids_taken, scheduled, timestep_at
from xhat.samplers.plans.timing import boundary_of, timing_of

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)


def whole(
    model: str,
    pipe: Any,
    *,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    timesteps: Iterable[float] | None = None,
    sigmas: Iterable[float] | None = None,
    **knobs: Any,
) -> Plan:
    """All steps of one model's schedule, at its own defaults: what the pipeline itself would do,
    but for the knobs.

    Parameters
    ----------
    model
        its name in the plan.
    pipe
        the pipeline; only its scheduler and defaults are looked at.
    num_inference_steps, guidance_scale
        None: those that belong to the pipeline.
    timesteps, sigmas
        the same model on another grid: as the pipeline called with them.
    **knobs
        further fields of the :class:`~xhat.samplers.plans.plan.Segment`.
    """
    schedule = schedule_of(pipe, num_inference_steps, timesteps, sigmas)
    return _from_step(0, model, pipe, schedule, guidance_scale, **knobs)


def _from_step(
    start: int,
    model: str,
    pipe: Any,
    schedule: dict[str, Any],
    guidance_scale: float | None,
    **knobs: Any,
) -> Plan:
    scale = default_guidance(pipe) if guidance_scale is None else guidance_scale
    stop = schedule["num_inference_steps"]
    segment = Segment(model, start, stop, guidance_scale=scale, **schedule, **knobs)
    second = model_of(pipe).stated.get("guidance_scale_2")
    if guidance_scale is not None or second is None:
        return Plan([segment])
    return Plan(_at_boundary(pipe, segment, float(second)))


def _at_boundary(pipe: Any, segment: Segment, second: float) -> list[Segment]:
    """The segment with a guidance scale of its own where a pipeline's second network is asked."""
    boundary = boundary_of(pipe)
    own = scheduled(pipe.scheduler, segment, timing=timing_of(pipe))
    above = sum(float(t) >= (boundary or 0.0) for t in own.timesteps)
    cut = min(max(segment.start, above), segment.stop)
    parts = [replace(segment, stop=cut)] if cut > segment.start else []
    if cut < segment.stop:
        parts.append(replace(segment, start=cut, guidance_scale=second))
    return parts


def swap_plan(
    base: Any,
    student: Any,
    replaced: Iterable[int],
    *,
    num_inference_steps: int | None = None,
    base_guidance_scale: float = 1.0,
    student_guidance_scale: float | None = None,
    noise: str | None = None,
    names: tuple[str, str] = ("base", "student"),
) -> Plan:
    """The student's schedule, with the steps ``replaced`` made by the base: leading, trailing,
    single or any others.

    Both have the same number of steps, so that arms differ in nothing but who makes a step; where
    the student has a grid of its own, the base is evaluated at its noise levels. None replaced is
    the student alone, all of them the base at the student's number of steps. ``noise`` is that of
    every segment."""
    schedule = schedule_of(student, num_inference_steps)
    steps = schedule["num_inference_steps"]
    swapped = set(replaced)
    if not swapped <= set(range(steps)):
        raise ValueError(
            f"steps to replace: {sorted(swapped)}; the student has steps 0 to {steps - 1}"
        )
    scale = default_guidance(student) if student_guidance_scale is None else student_guidance_scale
    of_base = matched(base, student, schedule)
    segments = []
    for is_base, members in groupby(range(steps), key=swapped.__contains__):
        run = list(members)
        segments.append(
            Segment(
                names[0] if is_base else names[1],
                run[0],
                run[-1] + 1,
                guidance_scale=base_guidance_scale if is_base else scale,
                noise=noise,
                **(of_base if is_base else schedule),
            )
        )
    return Plan(segments)


def matched(base: Any, student: Any, schedule: dict[str, Any]) -> dict[str, Any]:
    """The base's schedule of as many steps as the student's ``schedule``: its own, trailing, or the
    student's grid.

    Timesteps are those at which the base is at the student's noise levels. Raises ValueError for a
    base that cannot be put on them."""
    steps = schedule["num_inference_steps"]
    if set(schedule) == {"num_inference_steps"}:
        return {"num_inference_steps": steps, "spacing": trailing(base.scheduler)}
    if space(base.scheduler) == "flow":
        return schedule
    segment = Segment("student", 0, steps, **schedule)
    levels = noise_levels(scheduled(student.scheduler, segment, timing=timing_of(student)))
    timesteps = [timestep_at(base.scheduler, float(sigma)) for sigma in levels.sigma]
    if kind(base.scheduler) in BY_TIMESTEP:
        timesteps = [round(t) for t in timesteps]
    if "timesteps" not in grids_taken(base.scheduler):
        raise ValueError(
            f"the student's grid cannot be the base's: {type(base.scheduler).__name__} takes no "
            "timesteps. Put another scheduler in its pipeline first, for example "
            "pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)"
        )
    return {"num_inference_steps": steps, "timesteps": tuple(timesteps)}


def skip_plan(
    student: Any,
    *,
    skipped: int = 1,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    model: str = "student",
    **knobs: Any,
) -> Plan:
    """The student from its step ``skipped`` on, begun with pure noise as if it were the state
    there.

    Pure noise is x_T itself, at unit size in VP: the same seeds start from the same noise as in
    every other plan. Flow pipelines do not scale x_T, and there it is begun with as it is."""
    schedule = schedule_of(student, num_inference_steps)
    return _from_step(skipped, model, student, schedule, guidance_scale, **knobs)


def control_plans(
    base: Any,
    student: Any,
    *,
    base_guidance_scale: float = 1.0,
    guided_scale: float = 3.0,
    num_inference_steps: int | None = None,
    strengths: Iterable[float] = STRENGTHS,
) -> dict[str, Plan]:
    """The hybrid, and what it must be told from, by name.

    - ``student``, ``base_few``: the student, and the base at the student's number of steps.
    - ``hybrid``: by the default recipe; ``hybrid_one``: by one evaluation of the base, with its own
      noise; ``hybrid_paper``: by one, handed over with fresh noise.
    - ``skip``: no first step at all.
    - ``fresh``, ``fresh_zero``, ``fresh_mean``, ``fresh_shuffle``: the default recipe, but handed
      over with fresh noise and its x̂₀, nothing, the mean over seeds, or another seed's x̂₀.
    - ``student_shared``, ``hybrid_shared``: every sample is re-noised with one and the same noise,
      in both arms.
    - ``student_own``, ``hybrid_own``: no fresh noise, each step carries on the sample's own.
    - ``student_guided``: the student's own first step at the base's guidance ``guided_scale``;
      ``hybrid_guided``: the base's.
    - ``strength_…``: all steps at base + s·(student − base).
    """
    alone = whole("student", student, num_inference_steps=num_inference_steps)
    (own,) = alone.segments

    def replaced(recipe: str | None = None, **options: Any) -> Plan:
        given = {"base_guidance_scale": base_guidance_scale, **options}
        return hybrid_plan(
            base, student, recipe, student_num_inference_steps=num_inference_steps, **given
        )

    plans = {
        "student": alone,
        "hybrid": replaced(),
        "hybrid_one": replaced(base_evaluations=1),
        "hybrid_paper": replaced("paper"),
        "base_few": swap_plan(
            base,
            student,
            own.steps,
            num_inference_steps=num_inference_steps,
            base_guidance_scale=base_guidance_scale,
        ),
        "skip": skip_plan(student, num_inference_steps=num_inference_steps),
        "fresh": replaced(noise="fresh"),
        **{f"fresh_{x0}": replaced(noise="fresh", x0=x0) for x0 in ("zero", "mean", "shuffle")},
        **{f"student_{noise}": with_noise(alone, noise) for noise in ("shared", "own")},
        **{f"hybrid_{noise}": with_noise(replaced(), noise) for noise in ("shared", "own")},
        "student_guided": Plan(
            [replace(own, stop=1, guidance_scale=guided_scale), replace(own, start=1)]
        ),
        "hybrid_guided": replaced(base_guidance_scale=guided_scale),
    }
    dial = {f"strength_{s:g}": Plan([replace(own, strength=s)]) for s in strengths}
    return plans | dial


def with_noise(plan: Plan, noise: str | None) -> Plan:
    """The same plan, with every step going on to the next noise level by ``noise``."""
    return Plan(replace(segment, noise=noise) for segment in plan.segments)

"""The plans that questions are asked with: the hybrid, swaps of single steps, and the controls of
both.

All are made from the pipelines' schedulers and the defaults that belong to them; nothing is
evaluated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby
from typing import Any

from xhat.hooks.model import model_of
from xhat.hooks.noise.levels import NoiseLevels, noise_levels
from xhat.samplers.composite.run import scheduled
from xhat.samplers.composite.timing import timing_of
from xhat.samplers.plans.plan import Plan, Segment

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)


def default_steps(pipe: Any) -> int:
    """Number of steps that belongs to a pipeline: its checkpoint's, 4 under LCM and TCD, else its
    call's.
    """
    return model_of(pipe).steps


def default_guidance(pipe: Any) -> float:
    """Guidance scale that belongs to a pipeline: its checkpoint's, else none (1)."""
    own = model_of(pipe).stated.get("guidance_scale")
    return 1.0 if own is None else float(own)


def whole(
    model: str,
    pipe: Any,
    *,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    **knobs: Any,
) -> Plan:
    """All steps of one model's schedule, at its own defaults: what the pipeline itself would do,
    but for the knobs.
    """
    steps = default_steps(pipe) if num_inference_steps is None else num_inference_steps
    guidance = default_guidance(pipe) if guidance_scale is None else guidance_scale
    return Plan([Segment(model, 0, steps, steps, guidance, **knobs)])


def hybrid_plan(
    base: Any,
    student: Any,
    *,
    base_steps: int = 1,
    base_num_inference_steps: int | None = None,
    student_num_inference_steps: int | None = None,
    base_guidance_scale: float | None = None,
    student_guidance_scale: float | None = None,
    noise: str | None = None,
    x0: str | None = None,
    names: tuple[str, str] = ("base", "student"),
) -> Plan:
    """The base makes the student's first ``base_steps`` steps, the student the rest.

    ``base_num_inference_steps`` None: in as many steps, of the trailing schedule that comes nearest
    to the hand-over; else in all those of its own schedule of that many steps that lie above the
    hand-over. ``noise`` and ``x0`` are those of the base's segment. Raises ValueError where either
    would run no step."""
    steps = (
        default_steps(student)
        if student_num_inference_steps is None
        else student_num_inference_steps
    )
    _check_count(base_steps, steps)
    own = scheduled(
        student.scheduler, Segment("student", 0, steps, steps), timing=timing_of(student)
    )
    levels = noise_levels(own)
    target = float(levels.sigma[base_steps])
    if base_num_inference_steps is None:
        spacing = trailing(base.scheduler)
        total, stop = _nearest_schedule(base, spacing, base_steps, target), base_steps
    else:
        spacing, total = None, base_num_inference_steps
        own = scheduled(base.scheduler, Segment("base", 0, total, total), timing=timing_of(base))
        stop = _count_above(noise_levels(own), target)
        if stop == 0:
            raise ValueError(
                f"the base would run no step: of its {total} steps none is above the hand-over at "
                f"σ = {target:.4g}, "
                f"timestep {levels.timestep[base_steps]:g}. Give it more steps "
                "(base_num_inference_steps)"
            )
    guidance = (
        default_guidance(student) if student_guidance_scale is None else student_guidance_scale
    )
    scale = 1.0 if base_guidance_scale is None else base_guidance_scale
    first = Segment(names[0], 0, stop, total, scale, spacing=spacing, noise=noise, x0=x0)
    return Plan([first, Segment(names[1], base_steps, steps, steps, guidance)])


def _check_count(base_steps: int, steps: int) -> None:
    if isinstance(base_steps, bool) or not isinstance(base_steps, int):
        raise ValueError(f"base_steps is a whole number, got {base_steps!r}")
    if steps < 2:
        raise ValueError(
            f"a student of {steps} steps leaves none to one of the models: a hybrid takes 2 or more"
        )
    if base_steps < 1:
        raise ValueError(f"base_steps={base_steps}: the base would run no step. Expected 1 or more")
    if base_steps >= steps:
        raise ValueError(
            f"base_steps={base_steps}: the student, of {steps} steps, would run no step. Expected "
            f"1 to {steps - 1}"
        )


def trailing(scheduler: Any) -> str | None:
    """The spacing that makes a schedule of any number of steps start at the top, None where it does
    of itself.
    """
    return (
        "trailing" if scheduler.config.get("timestep_spacing", "trailing") != "trailing" else None
    )


def _count_above(levels: NoiseLevels, sigma: float) -> int:
    return int((levels.sigma > sigma * (1 + 1e-5)).sum())


def _nearest_schedule(base: Any, spacing: str | None, steps: int, sigma: float) -> int:
    """The number of steps of a schedule with ``steps`` of them above σ, the next one as near below
    as can be.
    """
    scheduler, timing = base.scheduler, timing_of(base)
    found = None
    for total in range(1, scheduler.config.num_train_timesteps + 1):
        try:
            own = scheduled(
                scheduler, Segment("base", 0, total, total, spacing=spacing), timing=timing
            )
        except ValueError:  # LCM has no schedule of more steps than it was trained for
            break
        above = _count_above(noise_levels(own), sigma)
        if above > steps:
            break
        if above == steps:
            found = total
    if found is None:
        raise ValueError(
            f"no schedule of {type(scheduler).__name__} has {steps} steps above σ = {sigma:.4g}: "
            "say base_num_inference_steps"
        )
    return found


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

    Both have the same number of steps, so that arms differ in nothing but who makes a step. None
    replaced is the student alone, all of them the base at the student's number of steps. ``noise``
    is that of every segment."""
    steps = default_steps(student) if num_inference_steps is None else num_inference_steps
    chosen = set(replaced)
    if not chosen <= set(range(steps)):
        raise ValueError(
            f"steps to replace: {sorted(chosen)}; the student has steps 0 to {steps - 1}"
        )
    guidance = (
        default_guidance(student) if student_guidance_scale is None else student_guidance_scale
    )
    segments = []
    for of_base, members in groupby(range(steps), key=chosen.__contains__):
        run = list(members)
        span = (run[0], run[-1] + 1, steps)
        if of_base:
            spacing = trailing(base.scheduler)
            segments.append(
                Segment(names[0], *span, base_guidance_scale, spacing=spacing, noise=noise)
            )
        else:
            segments.append(Segment(names[1], *span, guidance, noise=noise))
    return Plan(segments)


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
    steps = default_steps(student) if num_inference_steps is None else num_inference_steps
    guidance = default_guidance(student) if guidance_scale is None else guidance_scale
    return Plan([Segment(model, skipped, steps, steps, guidance, **knobs)])


def control_plans(
    base: Any,
    student: Any,
    *,
    base_guidance_scale: float = 1.0,
    guided_scale: float = 3.0,
    num_inference_steps: int | None = None,
    strengths: Iterable[float] = STRENGTHS,
) -> dict[str, Plan]:
    """The hybrid of one base step, and what it must be told from, by name.

    - ``student``, ``hybrid``, ``base_few``: the student, the hybrid, and the base at the student's
    number of steps.
    - ``skip``: no first step at all.
    - ``fresh``, ``fresh_zero``, ``fresh_mean``, ``fresh_shuffle``: the base's first step, handed
    over with fresh noise
      and its x̂₀, nothing, the mean over seeds, or another seed's x̂₀.
    - ``student_shared``, ``hybrid_shared``: every sample is re-noised with one and the same noise,
    in both arms.
    - ``student_own``, ``hybrid_own``: no fresh noise, each step carries on the sample's own.
    - ``student_guided``: the student's own first step at the base's guidance ``guided_scale``;
    ``hybrid_guided``: the
      base's.
    - ``strength_…``: all steps at base + s·(student − base).
    """
    steps = default_steps(student) if num_inference_steps is None else num_inference_steps
    guidance = default_guidance(student)
    alone = whole("student", student, num_inference_steps=steps)

    def replaced(
        noise: str | None = None, x0: str | None = None, scale: float = base_guidance_scale
    ) -> Plan:
        return hybrid_plan(
            base,
            student,
            student_num_inference_steps=steps,
            base_guidance_scale=scale,
            noise=noise,
            x0=x0,
        )

    plans = {
        "student": alone,
        "hybrid": replaced(),
        "base_few": swap_plan(
            base,
            student,
            range(steps),
            num_inference_steps=steps,
            base_guidance_scale=base_guidance_scale,
        ),
        "skip": skip_plan(student, num_inference_steps=steps),
        "fresh": replaced("fresh"),
        **{f"fresh_{x0}": replaced("fresh", x0) for x0 in ("zero", "mean", "shuffle")},
        **{f"student_{noise}": with_noise(alone, noise) for noise in ("shared", "own")},
        **{f"hybrid_{noise}": with_noise(replaced(), noise) for noise in ("shared", "own")},
        "student_guided": Plan(
            [
                Segment("student", 0, 1, steps, guided_scale),
                Segment("student", 1, steps, steps, guidance),
            ]
        ),
        "hybrid_guided": replaced(scale=guided_scale),
    }
    dial = {f"strength_{s:g}": Plan([replace(alone.segments[0], strength=s)]) for s in strengths}
    return plans | dial


def with_noise(plan: Plan, noise: str | None) -> Plan:
    """The same plan, with every step going on to the next noise level by ``noise``."""
    return Plan(replace(segment, noise=noise) for segment in plan.segments)

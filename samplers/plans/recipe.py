"""The hybrid: a base makes a student's first steps, in as many evaluations and with the noise that
a recipe says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from xhat.hooks.naming import suggestion
from xhat.hooks.noise.levels import NoiseLevels, noise_levels
from xhat.samplers.plans.defaults import default_guidance, schedule_of
from xhat.samplers.plans.plan import Plan
from xhat.samplers.plans.schedule import NoSchedule, scheduled
from xhat.samplers.plans.segment import NOISES, Segment
from xhat.samplers.plans.timing import timing_of

BASE_EVALUATIONS = 5
RECIPES = ("paper",)


@dataclass(frozen=True)
class Recipe:
    """How a base makes a student's first steps.

    base_steps
        how many of the student's first steps the base stands in for: it hands over at the noise
        level of the student's next one, exactly.
    base_evaluations
        in how many steps of its own the base goes from pure noise to there, each one evaluation, or
        two under guidance. None: ``BASE_EVALUATIONS``.
    base_num_inference_steps
        instead of ``base_evaluations``: the base makes all those steps above the hand-over of its
        own schedule of so many.
    base_guidance_scale
        guidance of the base's steps. None: without (1).
    noise
        ``"own"``: each step of the base, the hand-over included, carries on the sample's own
        implied noise (DDIM, arXiv 2010.02502, Eq. 12 with σ = 0). ``"fresh"``: so, but for the
        hand-over, which draws new noise. ``"shared"``: one noise for all, a control. None: as the
        base's scheduler does.
    x0
        what stands in for x̂₀ at the hand-over, as in :class:`~xhat.samplers.plans.plan.Segment`.
    base_adapters, student_adapters
        LoRAs that alone are on in the base's and in the student's steps, as in
        :class:`~xhat.samplers.plans.plan.Segment`: for a student that is a LoRA of the base, on one
        copy of the weights. None: as the pipelines have them.
    student_num_inference_steps, student_timesteps, student_sigmas, student_guidance_scale
        the student's schedule and guidance. None: its own.

    Raises ValueError for a number of steps or evaluations below 1, and for an unknown noise.
    """

    base_steps: int = 1
    base_evaluations: int | None = None
    base_num_inference_steps: int | None = None
    base_guidance_scale: float | None = None
    noise: str | None = "own"
    x0: str | None = None
    student_num_inference_steps: int | None = None
    student_timesteps: tuple[float, ...] | None = None
    student_sigmas: tuple[float, ...] | None = None
    student_guidance_scale: float | None = None
    base_adapters: Mapping[str, float] | None = None
    student_adapters: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        for name in ("base_steps", "base_evaluations", "base_num_inference_steps"):
            value = getattr(self, name)
            if value is None and name != "base_steps":
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f"{name} is a whole number, got {value!r}")
            if value < 1:
                raise ValueError(f"{name}={value}: the base would run no step. Expected 1 or more")
        if self.base_evaluations is not None and self.base_num_inference_steps is not None:
            raise ValueError(
                f"base_evaluations={self.base_evaluations} and base_num_inference_steps="
                f"{self.base_num_inference_steps} both say how many steps the base makes: give one"
            )
        if self.noise is not None and self.noise not in NOISES:
            raise ValueError(f"noise={self.noise!r}: expected None or one of {', '.join(NOISES)}")


def recipe_of(recipe: Recipe | str | None = None, **options: Any) -> Recipe:
    """A recipe by name or as it is, with the fields that are given changed.

    ``"paper"``: one evaluation of the base, unguided, for each of the student's steps that it
    stands in for, and fresh noise at the hand-over (Gandikota & Bau, arXiv 2503.10637, Sec. 5).
    Raises ValueError for another name, TypeError for a field that there is not."""
    known = [field.name for field in fields(Recipe)]
    for name in options:
        if name not in known:
            hint = suggestion(name, known) or f"; there are {', '.join(known)}"
            raise TypeError(f"a hybrid has no option {name!r}{hint}")
    if isinstance(recipe, Recipe):
        return replace(recipe, **options)
    if recipe is None:
        return Recipe(**options)
    if recipe not in RECIPES:
        raise ValueError(f"recipe={recipe!r}: expected a Recipe, or one of {', '.join(RECIPES)}")
    paper = {"noise": "fresh", "base_guidance_scale": 1.0}
    if options.get("base_num_inference_steps") is None:
        paper["base_evaluations"] = options.get("base_steps", 1)
    return Recipe(**{**paper, **options})


def hybrid_plan(
    base: Any,
    student: Any,
    recipe: Recipe | str | None = None,
    *,
    names: tuple[str, str] = ("base", "student"),
    **options: Any,
) -> Plan:
    """The base makes the student's first steps by ``recipe``, the student the rest.

    Parameters
    ----------
    base, student
        pipelines; only their schedulers and defaults are looked at.
    recipe
        a :class:`Recipe`, the name of one (``"paper"``), or None for the default.
    names
        what the models are called in the plan.
    **options
        fields of :class:`Recipe`, in place of those of ``recipe``.

    Raises
    ------
    ValueError
        where one of the models would run no step.
    """
    recipe = recipe_of(recipe, **options)
    schedule = schedule_of(
        student,
        recipe.student_num_inference_steps,
        recipe.student_timesteps,
        recipe.student_sigmas,
    )
    steps = schedule["num_inference_steps"]
    _check_student(recipe.base_steps, steps)
    guidance = recipe.student_guidance_scale
    late = Segment(
        names[1],
        recipe.base_steps,
        steps,
        guidance_scale=default_guidance(student) if guidance is None else guidance,
        adapters=recipe.student_adapters,
        **schedule,
    )
    levels = noise_levels(scheduled(student.scheduler, late, timing=timing_of(student)))
    early = _base_segment(base, recipe, names[0], levels)
    return Plan([*_with_noise(early, recipe), late])


def _check_student(base_steps: int, steps: int) -> None:
    if steps < 2:
        raise ValueError(
            f"a student of {steps} steps leaves none to one of the models: a hybrid takes 2 or more"
        )
    if base_steps >= steps:
        raise ValueError(
            f"base_steps={base_steps}: the student, of {steps} steps, would run no step. "
            f"Expected 1 to {steps - 1}"
        )


def _base_segment(base: Any, recipe: Recipe, name: str, levels: NoiseLevels) -> Segment:
    """The base's steps, from pure noise to the student's noise level at the hand-over."""
    target = levels[recipe.base_steps]
    total, spacing = recipe.base_num_inference_steps, None
    if total is None:
        spacing = trailing(base.scheduler)
        stop = BASE_EVALUATIONS if recipe.base_evaluations is None else recipe.base_evaluations
        total = _nearest_schedule(base, spacing, stop, target.sigma)
    else:
        own = scheduled(base.scheduler, Segment(name, 0, total, total), timing=timing_of(base))
        stop = _count_above(noise_levels(own), target.sigma)
        if stop == 0:
            raise ValueError(
                f"the base would run no step: of its {total} steps none is above the hand-over at "
                f"σ = {target.sigma:.4g}, timestep {target.timestep:g}. Give it more steps "
                "(base_num_inference_steps)"
            )
    scale = 1.0 if recipe.base_guidance_scale is None else recipe.base_guidance_scale
    return Segment(name, 0, stop, total, scale, spacing=spacing, adapters=recipe.base_adapters)


def _with_noise(early: Segment, recipe: Recipe) -> list[Segment]:
    """The base's steps by the recipe's noise; one that hands over in another way is apart."""
    last = replace(early, noise=recipe.noise, x0=recipe.x0)
    if recipe.noise != "fresh" or len(early.steps) == 1:
        return [last]
    cut = early.stop - 1
    return [replace(early, stop=cut, noise="own"), replace(last, start=cut)]


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
    nearest = None
    for total in range(1, scheduler.config.num_train_timesteps + 1):
        try:
            own = scheduled(
                scheduler, Segment("base", 0, total, total, spacing=spacing), timing=timing
            )
        except NoSchedule:
            break
        above = _count_above(noise_levels(own), sigma)
        if above > steps:
            break
        if above == steps:
            nearest = total
    if nearest is None:
        raise ValueError(
            f"no schedule of {type(scheduler).__name__} has {steps} steps above σ = {sigma:.4g}: "
            "give another base_evaluations, or base_num_inference_steps"
        )
    return nearest

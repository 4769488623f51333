"""A hybrid of several models as an ordinary pipeline: the base's class, a composite denoiser and
scheduler.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from xhat.hooks.describe import canonical
from xhat.hooks.families import family_of
from xhat.hooks.model import note, state
from xhat.hooks.naming import nearest
from xhat.hooks.points.names import slot_of
from xhat.hooks.protocols import Pipeline
from xhat.samplers.composite.adapted import Adapted
from xhat.samplers.composite.adapters import reach_all
from xhat.samplers.composite.denoiser import CompositeDenoiser, model_key, takes_guidance
from xhat.samplers.composite.dial import dialed
from xhat.samplers.composite.entering import enter_by_strength
from xhat.samplers.composite.experts import SECOND, denoiser_for_plan, expert, has_two
from xhat.samplers.composite.fit import check_fit
from xhat.samplers.composite.guidance import call_for, check_call, rule_of
from xhat.samplers.composite.scheduler import CompositeScheduler
from xhat.samplers.composite.supported import check_guidance, check_loop
from xhat.samplers.composite.tap import Tap
from xhat.samplers.plans.plan import Plan, Segment
from xhat.samplers.plans.recipe import Recipe, hybrid_plan
from xhat.samplers.plans.timing import timing_of


def hybrid(
    base: Pipeline,
    student: Pipeline,
    *,
    recipe: Recipe | str | None = None,
    plan: Plan | None = None,
    policy: Any = None,
    **options: Any,
) -> Any:
    """A pipeline of the base's class that denoises with ``base`` first and with ``student`` after.

    It is called like the base, and needs neither a number of steps nor a guidance scale: these are
    the plan's, and what is passed for them is not looked at. Prompts, generators, callbacks and
    output types work as always.

    The base makes the student's first ``base_steps`` steps (1): from pure noise down to exactly the
    noise level of the student's next timestep, in ``base_evaluations`` fine steps of its own
    (:data:`~xhat.samplers.plans.recipe.BASE_EVALUATIONS`), without guidance, and with its own noise
    carried on over the hand-over. ``repr(pipe.scheduler)`` says what a picture costs.

    Parameters
    ----------
    base, student
        diffusers pipelines with the same latents and prompt embeddings.
    recipe
        a :class:`~xhat.samplers.plans.recipe.Recipe`, or ``"paper"``: one evaluation of the base,
        handed over with fresh noise.
    plan, policy
        instead of a recipe, the steps in full, with the models named ``"base"`` and ``"student"``:
        a :class:`~xhat.samplers.plans.plan.Plan`, or a policy that has one.
    **options
        fields of the recipe: ``base_steps``, ``base_evaluations``, ``base_num_inference_steps``,
        ``base_guidance_scale``, ``noise`` (``"own"``, ``"fresh"``),
        ``student_num_inference_steps``, ``student_timesteps``, ``student_sigmas``,
        ``student_guidance_scale``. Guidance is none unless a scale above 1 is given; the negative
        prompt is the pipeline's.

    Raises
    ------
    ValueError
        where one of the models would run no step, where the models do not fit together, for a
        base in whose loop no plan can be run (:mod:`xhat.samplers.composite.supported`), for a
        scheduler that cannot be entered in the middle, and for more than one of ``plan``,
        ``policy`` and a recipe.

    References
    ----------
    Gandikota & Bau, arXiv 2503.10637, Sec. 5 (diversity distillation); schedules are aligned by
    noise level."""
    given = {"plan": plan, "policy": policy, "recipe": recipe, **options}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1 and ("plan" in named or "policy" in named):
        raise ValueError(
            "a plan says all that a hybrid does, and so does a policy: got "
            f"{', '.join(named)}; pass one of them"
        )
    models = {"base": base, "student": student}
    check_loop(base)
    check_fit(models)
    if policy is not None:
        plan = getattr(policy, "plan", policy)
    if plan is None:
        plan = hybrid_plan(base, student, recipe, **options)
    return _composed(models, plan, ())


def compose(pipes: Mapping[str, Pipeline], plan: Plan, taps: Sequence[Tap] = ()) -> Any:
    """A pipeline that runs ``plan`` with the named pipelines' models, each with its own scheduler.

    Its class, VAE and prompt encoders are those of the first pipeline. Segments of a strength other
    than 1 dial between the first pipeline's weights and their model's. Raises ValueError as
    :func:`hybrid` does, and for a plan that names a model that is not there."""
    check_loop(next(iter(pipes.values())))
    check_fit(pipes)
    return _composed(pipes, plan, taps)


def _composed(pipes: Mapping[str, Any], plan: Plan, taps: Sequence[Tap]) -> Any:
    if not isinstance(plan, Plan):
        raise ValueError(
            "expected an xhat.Plan, or a policy that has one as its plan; got "
            f"{type(plan).__name__}"
        )
    for name in plan.models:
        if name not in pipes:
            near = nearest(name, pipes) or list(pipes)
            raise ValueError(
                f"the plan names {name!r}; did you mean {near[0]!r}? Models: {', '.join(pipes)}"
            )
    first = next(iter(pipes.values()))
    slot = slot_of(first)
    if isinstance(getattr(first, slot), CompositeDenoiser):
        raise ValueError(
            "the first pipeline is a hybrid itself: compose the pipelines it was made of"
        )
    schedulers = {name: pipe.scheduler for name, pipe in pipes.items()}
    timings = {name: timing_of(pipe) for name, pipe in pipes.items()}
    rule, embed = rule_of(first), getattr(first, "get_guidance_scale_embedding", None)
    scheduler = CompositeScheduler(plan, schedulers, taps, timings, rule)
    cond_first = family_of(first).cond_first

    def now() -> float:
        return float(scheduler.run.entry.timestep)

    networks = _networks(
        {name: denoiser_for_plan(pipe, slot, now) for name, pipe in pipes.items()}, plan
    )
    denoiser = CompositeDenoiser(networks, scheduler, embed, rule, cond_first)
    return _assembled(first, slot, denoiser, scheduler)


def _networks(denoisers: Mapping[str, nn.Module], plan: Plan) -> dict[str, nn.Module]:
    """Name → network: the pipelines' own, and those between two of them that the plan asks for."""
    found = dict(denoisers)
    base = next(iter(denoisers.values()))
    for segment in plan.segments:
        key = model_key(segment)
        if key not in found:
            network = dialed(base, denoisers[segment.model], segment.strength)
            if segment.expert is not None:
                network = expert(network, segment.model, segment.expert)
            if segment.adapters is not None:
                network = Adapted(network, dict(segment.adapters))
            found[key] = network
    return found


def _assembled(
    first: Any, slot: str, denoiser: CompositeDenoiser, scheduler: CompositeScheduler
) -> Any:
    pipe = copy.copy(first)
    slots = [slot, SECOND] if has_two(first) else [slot]
    pipe.register_modules(**dict.fromkeys(slots, denoiser), scheduler=scheduler)
    plan, rule = scheduler.plan, denoiser.rule
    guidance = [_cfg_scale(segment, denoiser) for segment in plan.segments]
    top = max([1.0, *guidance, *(tap.guidance_scale for tap in scheduler.taps)])
    check_guidance(first, top)
    _rule_guidance(pipe, denoiser, top)
    enter_by_strength(pipe, scheduler)
    _show_progress(pipe, scheduler)
    reach_all(pipe, slot)
    steps = scheduler.num_inference_steps
    state(pipe, {"num_inference_steps": steps, **call_for(first, rule, top)})
    schedulers = {
        name: f"{type(s).__name__} {_settings(s)}" for name, s in scheduler.schedulers.items()
    }
    return note(
        pipe,
        plan=plan.to_json(),
        evaluations=sum(_cost(segment, denoiser) for segment in plan.segments),
        taps=[repr(tap) for tap in scheduler.taps],
        schedulers=schedulers,
    )


def _cfg_scale(segment: Segment, denoiser: CompositeDenoiser) -> float:
    """The scale of a segment's classifier-free guidance. Raises ValueError for two of them."""
    if takes_guidance(denoiser.models[model_key(segment)]):
        return segment.true_cfg_scale
    if segment.true_cfg_scale != 1:
        raise ValueError(
            f"true_cfg_scale {segment.true_cfg_scale:g} of {segment.model!r}, whose network does "
            "not take its guidance as an input: expected its scale as guidance_scale"
        )
    return segment.guidance_scale


def _cost(segment: Segment, denoiser: CompositeDenoiser) -> int:
    """Evaluations of a segment for one sample: one a step where guidance is the network's input."""
    return len(segment.steps) * (2 if _cfg_scale(segment, denoiser) > 1 else 1)


def _settings(scheduler: Any) -> str:
    return canonical({k: v for k, v in dict(scheduler.config).items() if not k.startswith("_")})


def _rule_guidance(pipe: Any, denoiser: CompositeDenoiser, top: float) -> None:
    """Have the pipeline encode a negative prompt exactly when a segment of the plan needs one.

    Encoding the prompt is the first thing a pipeline does that depends on guidance; its answer to
    whether it guides is settled there, and with it whether the denoiser will be given halves."""
    encode = pipe.encode_prompt
    # where it is no property, the call settled it before: then the denoiser takes the halves as
    # they come
    ruled = isinstance(getattr(type(pipe), "do_classifier_free_guidance", None), property)
    signature = inspect.signature(encode)
    settled: list[bool] = []

    def encode_prompt(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if top > 1:
            check_call(pipe, denoiser.rule, _caller_of_encode_prompt())
        if ruled:
            pipe._guidance_scale = (
                top if top > 1 else 0.0
            )  # some pipelines guide at any scale above 0
            if (
                "do_classifier_free_guidance" in signature.parameters
            ):  # not where guidance is the network's input
                bound.arguments["do_classifier_free_guidance"] = top > 1
        settled[:] = [bool(bound.arguments.get("do_classifier_free_guidance", False))]
        return encode(*bound.args, **bound.kwargs)

    def guides() -> bool:
        if settled:
            return settled.pop()
        if top > 1:  # a call with embeddings, of a pipeline that then encodes nothing (Z-Image)
            check_call(pipe, denoiser.rule, {})
        return ruled and bool(getattr(pipe, "do_classifier_free_guidance", False))

    pipe.encode_prompt = encode_prompt
    denoiser.guides = guides


def _caller_of_encode_prompt() -> dict[str, Any]:
    """What the pipeline's call was given, where it encodes its prompt itself. Read only to refuse
    settings that change the guidance, of which a pipeline's call tells nobody else.
    """
    frame = inspect.currentframe()
    for _ in range(2):
        frame = None if frame is None else frame.f_back
    return dict(frame.f_locals) if frame is not None and frame.f_code.co_name == "__call__" else {}


def _show_progress(pipe: Any, scheduler: CompositeScheduler) -> None:
    """The pipeline's progress bar counts the plan's steps."""
    bar = pipe.progress_bar

    def progress_bar(iterable: Any = None, total: int | None = None) -> Any:
        return bar(iterable, None if total is None else scheduler.num_inference_steps)

    pipe.progress_bar = progress_bar

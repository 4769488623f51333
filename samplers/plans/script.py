"""A plan as a script of diffusers alone, for those who do not have this package.

Everything that a hybrid works out when it is made is written down: each step's network, scheduler
and guidance, and the numbers by which latents are handed over. The script's loop is the pipeline's
own, so that its pictures are the hybrid's to the bit."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pprint import pformat
from string import Template
from typing import Any

import torch

from xhat.hooks.families import STACKED, family_of_class
from xhat.hooks.noise.levels import prediction, scales, space
from xhat.hooks.noise.schedulers import kind
from xhat.samplers.plans.schedule import settings
from xhat.samplers.plans.script_text import TEXT
from xhat.samplers.plans.sources import ModelSource, loading, sources_of
from xhat.samplers.plans.timing import Timing

_WRITTEN = {"model", "start", "stop", "num_inference_steps", "guidance_scale", "spacing", "noise"}
_WRITTEN |= {"x0", "timesteps", "sigmas"}


def script_of(
    pipe: Any,
    prompts: str | Sequence[str],
    *,
    seeds: Sequence[int] = (0,),
    sources: Mapping[str, ModelSource | str] | None = None,
    **call: Any,
) -> str:
    """A Python script that draws a hybrid's pictures with diffusers and torch alone.

    Parameters
    ----------
    pipe
        A hybrid (:func:`xhat.hybrid`).
    prompts, seeds
        What is drawn: every seed of every prompt, each in a call of its own.
    sources
        Model → where its weights lie. By default the folder or hub name that they were loaded from,
        where that is known.
    **call
        Further keywords of the pipeline's call: ``negative_prompt``, ``height`` and ``width``.

    Returns
    -------
    str
        The script. Run, it writes ``pictures/<prompt>-<seed>.png``; imported, its ``load()`` gives
        the pipeline.

    Raises
    ------
    ValueError
        For a pipeline that is no hybrid, for rivals and for what a script cannot do without this
        package (x̂₀ of other samples, weights between two models, LMS); and for weights whose
        source is not known.
    """
    scheduler: Any = getattr(pipe, "scheduler", None)
    if not hasattr(scheduler, "plan") or not hasattr(scheduler, "run"):
        raise ValueError(
            f"a script is written of a hybrid, got a {type(pipe).__name__}: xhat.hybrid(base, "
            "student)"
        )
    _check(pipe)
    slot = "unet" if getattr(pipe, "unet", None) is not None else "transformer"
    scheduler.set_timesteps()
    entries, networks = scheduler.run.entries, getattr(pipe, slot).models
    takes = {name: _guidance_input(network) for name, network in networks.items()}
    guided = [e.segment.guidance_scale for e in entries if takes[e.segment.model] is None]
    top = max([1.0, *guided])
    known = inspect.signature(type(pipe).__call__).parameters
    asked = {"num_inference_steps": len(entries), "guidance_scale": top if top > 1 else 0.0}
    asked = {name: value for name, value in asked.items() if name in known}
    stretches = list({id(entry.scheduler): entry for entry in entries}.values())
    places = {id(entry.scheduler): i for i, entry in enumerate(stretches)}
    made = [line for i, entry in enumerate(stretches) for line in _schedule(i, entry, scheduler)]
    models = {e.segment.model: networks[e.segment.model] for e in entries}
    first = next(iter(networks))
    models = {first: networks[first], **models}
    text = {
        "plan": str(scheduler.plan),
        "prompts": _text([prompts] if isinstance(prompts, str) else list(prompts)),
        "seeds": list(seeds),
        "call": _text(asked | call),
        "dtype": next(networks[first].parameters()).dtype,
        "steps": "\n".join(f"    {_step(e, places[id(e.scheduler)])}," for e in entries),
        "guided": top > 1,
        "takes": {name: how for name, how in takes.items() if how is not None},
        "mu": _shift(scheduler),
        "schedulers": "\n".join(f"    {line}" for line in made),
        "names": ", ".join(f"s{i}" for i in range(len(stretches))),
        "init_noise_sigma": float(scheduler.init_noise_sigma),
        "slot": slot,
        "arguments": _text(list(getattr(pipe, slot)._names)),
        "loading": "\n".join(
            f"    {line}" for line in loading(pipe, slot, sources_of(pipe, models, sources or {}))
        ),
    }
    return Template(TEXT).substitute(text, **_versions())


def check_plain(pipe: Any, what: str) -> None:
    """Raises ValueError for what only this package does. ``what`` is written: "a script"."""
    scheduler = pipe.scheduler
    if scheduler.taps:
        raise ValueError(
            f"{what} has no rivals, and this hybrid has {', '.join(map(repr, scheduler.taps))}"
        )
    for segment in scheduler.plan.segments:
        for field in fields(segment):
            value = getattr(segment, field.name)
            if field.name not in _WRITTEN and value != field.default:
                raise ValueError(
                    f"{field.name}={value!r} of the segment of {segment.model!r} is not written "
                    f"into {what.split()[-1]}s: leave it out, or run the plan with xhat"
                )


def _check(pipe: Any) -> None:
    """Raises ValueError for a hybrid that a script cannot run as it is run here."""
    check_plain(pipe, "a script")
    scheduler = pipe.scheduler
    for segment in scheduler.plan.segments:
        if segment.x0 not in (None, "zero"):
            raise ValueError(
                f"x0={segment.x0!r} hands over x̂₀ of other samples, and a script draws one sample "
                "a call"
            )
        if kind(scheduler.schedulers[segment.model]) == "LMSDiscreteScheduler":
            raise ValueError("LMS entered in the middle is not written into scripts: take Euler")
        if segment.guided and family_of_class(type(pipe)).guidance != STACKED:
            raise ValueError(
                f"guided segments of a {type(pipe).__name__} are not written into scripts: give "
                "every segment guidance_scale 1, or run the plan with xhat"
            )


def _guidance_input(network: Any) -> int | str | None:
    """How a network takes its guidance: ``"guidance"``, the width of its embedding, or not."""
    config = getattr(network, "config", {})
    return config.get("time_cond_proj_dim") or (
        "guidance" if config.get("guidance_embeds") else None
    )


def _step(entry: Any, place: int) -> str:
    """One row of the script's table of steps."""
    segment, scheduler = entry.segment, entry.scheduler
    row = [f"{segment.model!r}, {place}, {entry.step}, {segment.guidance_scale!r}"]
    if entry.noise is None:
        if entry.then is scheduler or space(scheduler) == space(entry.then):
            return f"Step({row[0]})"
        a, b = (math.hypot(*scales(s, entry.target)) for s in (entry.then, scheduler))
        return f"Step({row[0]}, carry={a / b!r})"
    level, clean = entry.level, entry.target.sigma == 0
    predicts = prediction(scheduler)
    if predicts == "edm":
        raise ValueError(f"{type(scheduler).__name__} cannot be handed over from in a script")
    row += [f"noise={entry.noise!r}", f"here={scales(scheduler, level)!r}"]
    row += [] if clean else [f"there={scales(entry.then, entry.target)!r}"]
    row += [f"predicts={predicts!r}"]
    row += [f"alpha_bar={float(level.alpha_bar)!r}"] if predicts == "v_prediction" else []
    row += ["keeps_x0=False"] if entry.x0 == "zero" else []
    lines = "".join(f"        {cell},\n" for cell in row)
    return f"Step(\n{lines}    )"


def _schedule(place: int, entry: Any, composite: Any) -> list[str]:
    """The lines that make the scheduler of a stretch: its own way as far as that goes, and then the
    numbers that are other.
    """
    scheduler, segment = entry.scheduler, entry.segment
    made = type(scheduler)
    if not made.__module__.startswith("diffusers."):
        raise ValueError(
            f"{made.__name__} is not one of diffusers' schedulers: a script cannot make it"
        )
    config = {k: v for k, v in dict(scheduler.config).items() if not k.startswith("_")}
    timing = composite.timings.get(segment.model, Timing())
    keywords = {
        name: value.tolist() if hasattr(value, "tolist") else value
        for name, value in settings(scheduler, segment, timing).items()
    }
    again = made.from_config(config)
    again.set_timesteps(**keywords)
    lines = [
        f"s{place} = diffusers.{made.__name__}.from_config(",
        "    {",
        *(f"        {name!r}: {_literal(value)}," for name, value in config.items()),
        "    }",
        ")",
        f"s{place}.set_timesteps({', '.join(f'{k}={v!r}' for k, v in keywords.items())})",
    ]
    for name in ("timesteps", "sigmas"):
        wanted = getattr(scheduler, name, None)
        if isinstance(wanted, torch.Tensor) and not torch.equal(wanted, getattr(again, name)):
            lines.append(f"s{place}.{name} = torch.tensor({wanted.tolist()}, dtype={wanted.dtype})")
    return lines


def _shift(composite: Any) -> float | None:
    """μ that the pipeline gives for its default size; None where it gives none."""
    first = composite.plan.models[0]
    timing = composite.timings.get(first, Timing())
    return timing.settings(composite.schedulers[first], None).get("mu")


def _literal(value: Any) -> str:
    infinite = isinstance(value, float) and not math.isfinite(value)
    return f"float({str(value)!r})" if infinite else repr(value)


def _text(value: Any) -> str:
    return pformat(value, width=96, sort_dicts=False, compact=True)


def _versions() -> dict[str, str]:
    import diffusers

    from xhat import __version__

    return {
        "xhat": __version__,
        "diffusers": diffusers.__version__,
        "torch": torch.__version__,
    }

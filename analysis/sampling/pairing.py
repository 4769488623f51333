"""Whether a checkpoint and its base can take turns: what they share, line by line."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from xhat.hooks.model import model_of
from xhat.hooks.noise.levels import kind, noise_levels, prediction, space
from xhat.hooks.points.names import denoiser_of, slot_of
from xhat.samplers.composite.fit import check_fit
from xhat.samplers.composite.handover import DIVISIBLE
from xhat.samplers.plans.defaults import default_steps
from xhat.samplers.plans.plan import Segment
from xhat.samplers.plans.recipe import trailing
from xhat.samplers.plans.schedule import scheduled


@dataclass(frozen=True)
class Line:
    """One thing compared: its value in the base (None without one) and in the checkpoint, and what
    follows from it.
    """

    what: str
    base: str | None
    checkpoint: str
    verdict: str


def compare_models(student: Any, base: Any = None) -> list[Line]:
    """Latents, VAE, prompt encoders, prediction and schedule of a checkpoint, beside those of its
    base.

    Raises ValueError, with all that does not fit, where the two cannot take turns on the same
    latents."""
    lines = [_line(what, of, student, base) for what, of in _ASKED.items()]
    if base is None:
        return lines
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_fit({"base": base, "checkpoint": student})
    said = "; ".join(str(w.message) for w in caught) or "the same"
    lines.append(Line("prompt encoders' weights", "", "", said))
    lines.append(Line("noise levels", _levels(base), _levels(student), _shared(base, student)))
    return lines


def _line(what: str, of: Any, student: Any, base: Any) -> Line:
    mine = of(student)
    other = None if base is None else of(base)
    verdict = (
        "" if base is None else "the same" if mine == other else _DIFFERENT.get(what, "different")
    )
    return Line(what, other, mine, verdict)


def called_guidance(pipe: Any) -> float:
    """The guidance that an ordinary call of the pipeline has: what belongs to it, else its class's
    own.
    """
    return model_of(pipe).guidance_scale


def _latents(pipe: Any) -> str:
    config: Any = denoiser_of(pipe).config
    side = config.get("sample_size")
    return f"{config.get('in_channels')} channels" + (
        f", {side} × {side}" if isinstance(side, int) else ""
    )


def _vae(pipe: Any) -> str:
    config = getattr(getattr(pipe, "vae", None), "config", {})
    scale = config.get("scaling_factor") or 1.0
    return f"{type(getattr(pipe, 'vae', None)).__name__}, scaling {scale:.4g}"


def _encoders(pipe: Any) -> str:
    names = [
        type(getattr(pipe, n)).__name__
        for n in ("text_encoder", "text_encoder_2", "text_encoder_3")
        if getattr(pipe, n, None) is not None
    ]
    return ", ".join(names) or "none"


def _schedule(pipe: Any) -> str:
    guidance = called_guidance(pipe)
    return f"{kind(pipe.scheduler)}, {default_steps(pipe)} steps, " + (
        f"guidance {guidance:g}" if guidance > 1 else "no guidance"
    )


_ASKED = {
    "denoiser": lambda pipe: f"{type(denoiser_of(pipe)).__name__} as {slot_of(pipe)}",
    "latents": _latents,
    "VAE": _vae,
    "prompt encoders": _encoders,
    "prediction": lambda pipe: f"{prediction(pipe.scheduler)}, {space(pipe.scheduler)} latents",
    "schedule": _schedule,
}
_DIFFERENT = {
    "prediction": "different: handed over as x̂₀ at equal noise",
    "schedule": "each runs its own",
    "latents": "different sizes: run at one",
}


def _levels(pipe: Any) -> str:
    levels = _of(pipe).sigma
    return ", ".join(
        f"{v:.3g}" for v in (levels if len(levels) <= 6 else [*levels[:2], *levels[-2:]])
    )


def _of(pipe: Any) -> Any:
    steps = default_steps(pipe)
    return noise_levels(scheduled(pipe.scheduler, Segment("model", 0, steps, steps)))


def _shared(base: Any, student: Any) -> str:
    ours, theirs = _of(base).sigma, _of(student).sigma
    with np.errstate(divide="ignore", invalid="ignore"):
        near = np.abs(np.log(theirs)[:, None] - np.log(ours)[None, :])
    met = int(((near < 1e-3) | (theirs[:, None] == ours[None, :])).any(1).sum())
    return f"{met} of the checkpoint's {len(theirs)} are in the base's schedule"


def divisible(pipe: Any) -> str | None:
    """Put a scheduler that can be entered in the middle in place of one that cannot; says so, None
    where none was.
    """
    if kind(pipe.scheduler) in DIVISIBLE:
        return None
    import diffusers

    before, flow = kind(pipe.scheduler), space(pipe.scheduler) == "flow"
    stand: Any = diffusers.FlowMatchEulerDiscreteScheduler if flow else diffusers.DDIMScheduler
    spacing = {} if flow or trailing(pipe.scheduler) is None else {"timestep_spacing": "trailing"}
    pipe.scheduler = stand.from_config(pipe.scheduler.config, **spacing)
    return f"{before} cannot be entered in the middle: {stand.__name__} stands in for it."

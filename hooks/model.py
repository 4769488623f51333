"""What belongs to a pipeline's checkpoint: how its call goes where the caller says nothing.

It is kept in the pipeline's own configuration, under a private key. So a copy has it, and so has a
pipeline that was saved with ``save_pretrained`` and loaded again, by diffusers alone too."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xhat.hooks.families import STACKED, family_of

if TYPE_CHECKING:
    from xhat.hooks.protocols import Pipeline

KEY = "_xhat"
FILE = "xhat.json"  # beside the model_index.json of a checkpoint's folder
SCHEDULE = {"num_inference_steps", "timesteps", "sigmas"}
FEW_STEP_SCHEDULERS = {"LCMScheduler", "TCDScheduler", "FlowMatchLCMScheduler"}

Origin = Literal["checkpoint", "base", "scheduler", "pipeline"]


@dataclass(frozen=True)
class Model:
    """A pipeline, and what is known of its checkpoint.

    Parameters
    ----------
    pipe
        The pipeline itself, an ordinary one.
    stated
        Arguments of its call that belong to the checkpoint: steps, guidance, timesteps. Empty where
        nothing states any, and the pipeline's class decides.
    origin
        Who states them: the ``"checkpoint"``, the ``"base"`` onto which bare weights were put, the
        ``"scheduler"`` (LCM and TCD make few steps), or only the ``"pipeline"`` class.
    description
        What a trace notes of the pipeline beside its configuration, a hybrid's plan for instance.
    """

    pipe: Pipeline
    stated: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin = "pipeline"
    description: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """``given`` over what belongs to the checkpoint. A schedule is given as a whole."""
        belonging = {k: v for k, v in self.stated.items() if v is not None}
        if SCHEDULE & set(given):
            belonging = {k: v for k, v in belonging.items() if k not in SCHEDULE}
        return belonging | dict(given)

    @property
    def steps(self) -> int:
        """Number of steps of a call that names none."""
        return int(self._of_call("num_inference_steps", 1))

    @property
    def guidance_scale(self) -> float:
        """Guidance scale of a call that names none."""
        return float(self._of_call("guidance_scale", 1.0))

    @property
    def defaults(self) -> dict[str, Any]:
        """Steps and guidance of a call that names none, and all else that belongs to it."""
        known = _parameters(self.pipe)
        named = {k: known[k] for k in ("num_inference_steps", "guidance_scale") if k in known}
        return named | {k: v for k, v in self.stated.items() if v is not None}

    def _of_call(self, name: str, otherwise: float) -> Any:
        value = self.stated.get(name)
        value = _parameters(self.pipe).get(name) if value is None else value
        return otherwise if value is None else value


def model_of(pipe: Pipeline) -> Model:
    """The pipeline with what belongs to its checkpoint.

    What was stated for the pipeline comes first (:func:`state`), then what its folder says, then
    its scheduler: LCM and TCD make four steps without guidance."""
    if "xhat_defaults" in getattr(pipe, "__dict__", {}):
        raise ValueError(
            "pipe.xhat_defaults is not read any more: "
            "use xhat.set_defaults(pipe, num_inference_steps=…, guidance_scale=…)"
        )
    entry = _entry(pipe)
    if entry.get("stated"):
        return Model(pipe, **entry)
    description = entry.get("description", {})
    stated = _of_folder(pipe)
    if stated:
        return Model(pipe, stated, "checkpoint", description)
    stated = _of_scheduler(pipe)
    return Model(pipe, stated, "scheduler" if stated else "pipeline", description)


def state(pipe: Pipeline, stated: Mapping[str, Any], origin: Origin = "checkpoint") -> Any:
    """Have these arguments belong to the pipeline's checkpoint; returns the pipeline."""
    pipe.register_to_config(**{KEY: _entry(pipe) | {"stated": dict(stated), "origin": origin}})
    return pipe


def note(pipe: Pipeline, **description: Any) -> Any:
    """Add to what a trace notes of the pipeline; returns the pipeline."""
    entry = _entry(pipe)
    whole = {**entry.get("description", {}), **description}
    pipe.register_to_config(**{KEY: entry | {"description": whole}})
    return pipe


def defaults(pipe: Pipeline) -> dict[str, Any]:
    """What a pipeline's call is given where the caller says nothing: steps, guidance and the like.

    ``pipe(prompt, **xhat.defaults(pipe))`` samples as :func:`xhat.trace` does.

    Parameters
    ----------
    pipe
        A diffusers pipeline.

    Returns
    -------
    dict
        Keywords of the pipeline's call: those that belong to its checkpoint, else those of its
        class.
    """
    return model_of(pipe).defaults


def set_defaults(pipe: Pipeline, **call: Any) -> Any:
    """Have steps, guidance or other keywords of the call belong to a pipeline.

    They hold for :func:`xhat.trace`, hybrids and all measurements; the pipeline's own call still
    takes what it is given. A copy has them, and a pipeline saved with ``save_pretrained`` too.

    Parameters
    ----------
    pipe
        A diffusers pipeline.
    **call
        Keywords of its call, such as ``num_inference_steps`` and ``guidance_scale``.

    Returns
    -------
    pipe
        The same pipeline.

    Raises
    ------
    ValueError
        For a keyword that the pipeline's call does not take.
    """
    known = inspect.signature(type(pipe).__call__).parameters
    for name in call:
        if name not in known:
            raise ValueError(f"{type(pipe).__name__} takes no {name!r} in its call")
    return state(pipe, {**model_of(pipe).stated, **call})


def with_defaults(pipe: Pipeline, given: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` over what belongs to the pipeline's checkpoint. A schedule is given as a whole."""
    return model_of(pipe).arguments(given)


def _entry(pipe: Pipeline) -> dict[str, Any]:
    return dict(getattr(pipe, "config", {}).get(KEY) or {})


def _parameters(pipe: Pipeline) -> dict[str, Any]:
    """Name → default of the arguments of the pipeline's call."""
    found = inspect.signature(type(pipe).__call__).parameters
    return {n: None if p.default is p.empty else p.default for n, p in found.items()}


def _of_folder(pipe: Pipeline) -> dict[str, Any]:
    """What the folder says that the pipeline was loaded from, while its scheduler is of the class
    saved there.
    """
    folder = Path(str(getattr(pipe, "config", {}).get("_name_or_path") or ""))
    index = folder / "model_index.json"
    if folder == Path() or not index.is_file():
        return {}
    saved = json.loads(index.read_text())
    if saved.get("scheduler", ["", ""])[1] != type(pipe.scheduler).__name__:
        return {}
    if KEY in saved:
        return dict(saved[KEY].get("stated", {}))
    file = folder / FILE
    return stated_in(file) if file.is_file() else {}


def stated_in(file: Path) -> dict[str, Any]:
    """What a checkpoint's ``xhat.json`` states. Raises ValueError for a file that is no object of
    JSON, and for steps or guidance that are no such numbers.
    """
    try:
        stated = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON that could be read: {error}") from None
    if not isinstance(stated, dict):
        raise ValueError(f"{file} holds a {type(stated).__name__}: expected an object of JSON")
    steps, guidance = stated.get("num_inference_steps"), stated.get("guidance_scale")
    if steps is not None and (type(steps) is not int or steps < 1):
        raise ValueError(f"{file}: num_inference_steps={steps!r}, expected a whole number above 0")
    if guidance is not None and type(guidance) not in (int, float):
        raise ValueError(f"{file}: guidance_scale={guidance!r}, expected a number")
    return stated


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _of_scheduler(pipe: Pipeline) -> dict[str, Any]:
    if type(pipe.scheduler).__name__ not in FEW_STEP_SCHEDULERS:
        return {}
    steps = min(4, pipe.scheduler.config.get("original_inference_steps") or 4)
    rule = family_of(pipe).guidance or STACKED
    return {"num_inference_steps": steps, rule.argument: rule.in_call(1.0)}

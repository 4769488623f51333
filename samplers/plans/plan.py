"""A plan says who denoises when: a list of segments, each a model, some of its scheduler's steps,
and how.

Plans are data. They know nothing of weights or schedulers, can be written to JSON and read back,
printed, compared and counted; :mod:`xhat.samplers.composite.pipeline` runs them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from html import escape
from typing import Any

from xhat.hooks.naming import nearest
from xhat.samplers.plans.segment import Segment

__all__ = ["Plan", "Segment"]


@dataclass(frozen=True)
class Plan:
    """Segments in the order they are run.

    Parameters
    ----------
    segments
        Each a :class:`Segment`: a model, some of its scheduler's steps, its guidance.

    Raises
    ------
    ValueError
        For a plan without segments, and for one that replaces x̂₀ where nothing follows.

    Examples
    --------
    >>> plan = Plan([Segment("base", 0, 1, 4, spacing="trailing"), Segment("student", 1, 4, 4)])
    >>> print(plan)
    Plan, 4 evaluations
      base     step 0 of 4     guidance 1  spacing trailing
      student  steps 1–3 of 4  guidance 1
    >>> Plan.from_json(plan.to_json()) == plan
    True
    """

    segments: tuple[Segment, ...]

    def __init__(self, segments: Iterable[Segment]) -> None:
        object.__setattr__(self, "segments", tuple(segments))
        if not self.segments:
            raise ValueError("a plan needs at least one segment, got none")
        for segment in self.segments:
            if not isinstance(segment, Segment):
                raise ValueError(
                    f"a plan is made of Segments, got {type(segment).__name__}: {segment!r}"
                )
        if self.segments[-1].x0 is not None:
            raise ValueError(
                f"x0={self.segments[-1].x0!r} replaces x̂₀ at a hand-over, and nothing follows "
                "the last segment"
            )

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models, in the order they are first run."""
        return tuple(dict.fromkeys(segment.model for segment in self.segments))

    @property
    def segment_of_step(self) -> list[str]:
        """The model of every step of the run."""
        return [segment.model for segment in self.segments for _ in segment.steps]

    @property
    def evaluations(self) -> int:
        """Network evaluations for one sample."""
        return sum(segment.evaluations for segment in self.segments)

    def to_json(self) -> str:
        """JSON text; fields at their defaults are left out."""
        return json.dumps({"segments": [_changed(segment) for segment in self.segments]}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that :meth:`to_json` wrote. Raises ValueError for text that is not a plan."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"not a plan: {error}") from error
        if not isinstance(data, Mapping) or not isinstance(data.get("segments"), list):
            raise ValueError('not a plan: expected {"segments": [...]}')
        return cls(_segment(entry) for entry in data["segments"])

    def to_script(self, pipe: Any, prompts: str | Sequence[str], **options: Any) -> str:
        """A Python script that draws the plan's pictures with diffusers alone, to the bit.

        Parameters
        ----------
        pipe
            The hybrid that runs the plan: schedules and sources are read from it.
        prompts
            A prompt, or several.
        **options
            ``seeds``, ``sources`` and keywords of the pipeline's call, as in
            :func:`~xhat.samplers.plans.script.script_of`.

        Raises
        ------
        ValueError
            For a hybrid of another plan, and for what a script cannot do.
        """
        from xhat.samplers.plans.script import script_of

        self._check_run_by(pipe)
        return script_of(pipe, prompts, **options)

    def to_comfyui(self, pipe: Any, prompt: str, **options: Any) -> dict[str, Any]:
        """The plan as a workflow of ComfyUI, in its API format.

        Parameters
        ----------
        pipe
            The hybrid that runs the plan: noise levels are read from it.
        prompt
            What is drawn.
        **options
            ``files`` (model → file as ComfyUI lists it), ``seed``, ``negative_prompt``, ``width``,
            ``height`` and ``batch_size``, as in :func:`~xhat.samplers.plans.comfyui.comfyui_of`.

        Raises
        ------
        ValueError
            For a hybrid of another plan, and for what a workflow cannot do.
        """
        from xhat.samplers.plans.comfyui import comfyui_of

        self._check_run_by(pipe)
        return comfyui_of(pipe, prompt, **options)

    def _check_run_by(self, pipe: Any) -> None:
        plan = getattr(getattr(pipe, "scheduler", None), "plan", None)
        if plan is not None and plan != self:
            raise ValueError(f"the pipeline runs another plan than this one: {plan}")

    def __str__(self) -> str:
        rows = [_cells(segment) for segment in self.segments]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            for row in rows
        ]
        return "\n".join(
            [f"Plan, {self.evaluations} evaluations", *(f"  {line}".rstrip() for line in lines)]
        )

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("model", "steps", "guidance", "knobs"))
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(segment)) + "</tr>"
            for segment in self.segments
        )
        caption = f"<caption>{self.evaluations} evaluations</caption>"
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _changed(segment: Segment) -> dict[str, Any]:
    """The fields of a segment that are not at their defaults."""
    defaults = {field.name: field.default for field in fields(Segment)}
    values = asdict(segment)
    if segment.adapters is not None:
        values["adapters"] = dict(segment.adapters)
    return {name: value for name, value in values.items() if value != defaults[name]}


def _segment(entry: Any) -> Segment:
    if not isinstance(entry, Mapping):
        raise ValueError(f"not a plan: a segment is an object of fields, got {entry!r}")
    known = [field.name for field in fields(Segment)]
    for name in entry:
        if name not in known:
            near = nearest(name, known) or known
            raise ValueError(f"a segment has no field {name!r}; did you mean {near[0]!r}?")
    missing = [f.name for f in fields(Segment) if f.default is MISSING and f.name not in entry]
    if missing:
        raise ValueError(f"not a plan: a segment lacks {', '.join(missing)}")
    return Segment(**entry)


def _cells(segment: Segment) -> tuple[str, str, str, str]:
    first, last = segment.steps[0], segment.steps[-1]
    steps = f"step {first}" if first == last else f"steps {first}–{last}"
    names = ("spacing", "noise", "x0", "strength", "true_cfg_scale", "expert")
    knobs = [(name, getattr(segment, name)) for name in names]
    changed = [
        f"{name} {value:g}" if isinstance(value, int | float) else f"{name} {value}"
        for name, value in knobs
        if _set(value)
    ]
    if segment.adapters is not None:
        scales = [f"{name} {scale:g}" for name, scale in dict(segment.adapters).items()]
        changed.append(f"adapters {' + '.join(scales)}" if scales else "no adapters")
    changed += [f"{name} {_listed(grid)}" for name, grid in segment.grid.items()]
    return (
        segment.model,
        f"{steps} of {segment.num_inference_steps}",
        f"guidance {segment.guidance_scale:g}",
        ", ".join(changed),
    )


def _listed(grid: Sequence[float]) -> str:
    """A grid in a few words: all of it, or both ends.

    >>> _listed((999, 390, 155, 60)), _listed(range(20, 0, -1))
    ('999/390/155/60', '20/19/…/1')
    """
    values = [f"{value:.4g}" for value in grid]
    return "/".join(values if len(values) <= 8 else [*values[:2], "…", values[-1]])


def _set(value: Any) -> bool:
    return value is not None and value != 1.0

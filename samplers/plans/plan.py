"""A plan says who denoises when: a list of segments, each a model, some of its scheduler's steps,
and how.

Plans are data. They know nothing of weights or schedulers, can be written to JSON and read back,
printed, compared and counted; :mod:`xhat.samplers.composite.pipeline` runs them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from html import escape
from itertools import pairwise
from typing import Any

from xhat.hooks.naming import nearest

NOISES = ("fresh", "own", "shared")
ESTIMATES = ("zero", "mean", "shuffle")
SPACINGS = ("leading", "linspace", "trailing")
GRIDS = ("timesteps", "sigmas")


@dataclass(frozen=True)
class Segment:
    """Steps ``start`` to ``stop`` (excluded) of a model's own schedule of ``num_inference_steps``
    steps.

    Parameters
    ----------
    model
        Name of the model.
    start, stop, num_inference_steps
        Which steps, of how many.
    guidance_scale
        classifier-free guidance of these steps; at 1 or below the plain conditional prediction is
        used, in one evaluation. A model that takes its guidance as an input is given this scale.
    spacing
        ``timestep_spacing`` put in place of the scheduler's own. ``"trailing"`` starts at the
        highest noise level whatever the number of steps (Lin et al., arXiv 2305.08891, Table 2).
    noise
        how each of these steps, the one that hands over included, goes from x̂₀ to the next noise
        level: x' = √ᾱ'·x̂₀ + √(1−ᾱ')·ε with ε ``"fresh"``, the sample's ``"own"`` implied noise
        (DDIM, arXiv 2010.02502, Eq. 12 with σ = 0), or one noise ``"shared"`` by every sample, step
        and run. None: as the scheduler does.
    x0
        what stands in for x̂₀ when the last of these steps hands over: ``"zero"``, the ``"mean"``
        over the batch's samples of the same prompt, or that of another of these samples
        (``"shuffle"``). None: x̂₀ itself.
    strength
        s of the weights θ = base + s·(model − base).
    timesteps, sigmas
        the schedule itself, one number a step and falling, in place of the one the scheduler would
        make: timesteps as it counts them, or noise levels as its ``set_timesteps(sigmas=…)`` takes
        them, before any shift and without the end at 0. A pipeline called with them runs at the
        same levels.

    Raises
    ------
    ValueError
        For a segment that runs no step, and for any field that is out of its range.

    Examples
    --------
    >>> Segment("student", 1, 4, 4).steps
    range(1, 4)
    """

    model: str
    start: int
    stop: int
    num_inference_steps: int
    guidance_scale: float = 1.0
    spacing: str | None = None
    noise: str | None = None
    x0: str | None = None
    strength: float = 1.0
    timesteps: tuple[float, ...] | None = None
    sigmas: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.model or not isinstance(self.model, str):
            raise ValueError(f"a segment needs the name of its model, got {self.model!r}")
        for name in ("start", "stop", "num_inference_steps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f"{name} of a segment is a whole number, got {value!r}")
        if not 0 <= self.start < self.stop <= self.num_inference_steps:
            raise ValueError(
                f"segment of {self.model!r} runs {max(0, self.stop - self.start)} steps: start "
                f"{self.start}, stop {self.stop} of {self.num_inference_steps}; expected "
                "0 <= start < stop <= num_inference_steps"
            )
        for name in ("guidance_scale", "strength"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{name} of a segment is a finite number, got {value!r}")
        for name, known in (("noise", NOISES), ("x0", ESTIMATES), ("spacing", SPACINGS)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ValueError(
                    f"{name} of a segment is None or one of {', '.join(known)}, got {value!r}"
                )
        self._check_grid()

    def _check_grid(self) -> None:
        for name in GRIDS:
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, falling(name, values, self.num_inference_steps))
        if len(self.grid) + (self.spacing is not None) > 1:
            raise ValueError(
                "a segment has its schedule by one of spacing, timesteps and sigmas, got "
                + " and ".join((*self.grid, *([] if self.spacing is None else ["spacing"])))
            )

    @property
    def grid(self) -> dict[str, tuple[float, ...]]:
        """The schedule's own ``timesteps`` or ``sigmas`` by name; empty where the scheduler makes
        it.
        """
        values = {name: getattr(self, name) for name in GRIDS}
        return {name: grid for name, grid in values.items() if grid is not None}

    @property
    def schedule(self) -> tuple[Any, ...]:
        """All that says which timesteps the model's scheduler has."""
        return (self.num_inference_steps, self.spacing, self.timesteps, self.sigmas)

    @property
    def steps(self) -> range:
        """Indices into the scheduler's own schedule."""
        return range(self.start, self.stop)

    @property
    def guided(self) -> bool:
        return self.guidance_scale > 1

    @property
    def evaluations(self) -> int:
        """Network evaluations for one sample: two a step under guidance."""
        return len(self.steps) * (2 if self.guided else 1)

    def continues(self, other: Segment) -> bool:
        """Whether these are the very next steps of ``other``'s schedule, so that nothing is handed
        over.
        """
        mine = (self.model, self.schedule, self.strength, self.start)
        theirs = (other.model, other.schedule, other.strength, other.stop)
        return mine == theirs and other.noise is None and other.x0 is None


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


def falling(name: str, values: Any, steps: int) -> tuple[float, ...]:
    """A grid as a tuple of numbers. Raises ValueError unless it falls, has one number a step, and
    ends above 0 (timesteps: at 0 or above).
    """
    try:
        grid = tuple(_number(value) for value in values)
    except (TypeError, ValueError):
        raise ValueError(f"{name} of a segment are numbers, got {values!r}") from None
    listed = ", ".join(f"{value:g}" for value in grid)
    if len(grid) != steps:
        raise ValueError(
            f"{name} of a segment: expected one for each of its {steps} steps, got "
            f"{len(grid)}: {listed}"
        )
    if not all(math.isfinite(value) for value in grid):
        raise ValueError(f"{name} of a segment are finite numbers, got {listed}")
    if any(later >= earlier for earlier, later in pairwise(grid)):
        raise ValueError(f"{name} of a segment fall from step to step, got {listed}")
    if grid[-1] < 0 or (name == "sigmas" and grid[-1] == 0):
        least = "0 or more" if name == "timesteps" else "above 0, without the end at 0"
        raise ValueError(f"{name} of a segment are {least}, got {listed}")
    return grid


def _number(value: Any) -> float:
    if isinstance(value, str | bool):
        raise TypeError("not a number")
    number = float(value)
    return int(number) if number.is_integer() else number


def _changed(segment: Segment) -> dict[str, Any]:
    """The fields of a segment that are not at their defaults."""
    defaults = {field.name: field.default for field in fields(Segment)}
    return {name: value for name, value in asdict(segment).items() if value != defaults[name]}


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
    knobs = [(name, getattr(segment, name)) for name in ("spacing", "noise", "x0", "strength")]
    changed = [
        f"{name} {value:g}" if name == "strength" else f"{name} {value}"
        for name, value in knobs
        if _set(value)
    ]
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
